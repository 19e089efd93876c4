"""The plan before the bill (`--dry-run`): trials, rounds, epochs, hours, memory and disk of a sweep.

In: a `Plan`. Out: an `Estimate` and its lines. Epochs are counted on the plan's draws. Hours come from real training
steps of the largest draw on this machine. Nothing is written.
"""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainables.rsst.config import RSSTConfig
from trainables.rsst.measure import Course, Measured, course_of, measure_in_child
from trainables.rsst.size import Size, dense_sizes
from trainables.text import duration, mib
from tune_rsst.ledger.spending import Spending, limits, told
from tune_rsst.planning.plan import Plan
from tune_rsst.runners import capacity, resources
from tune_rsst.runners.ray_cluster import address, nodes_of
from tune_rsst.search.halving import EqualShareHalving
from tune_rsst.settings.settings import SweepSettings

IMAGINED_SWEEPS = 20
STARTS = 4.0
"""Start and end of a sweep, in starts of one process that imports torch: driver, Ray and workers, uploads."""


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take; epochs and seconds are sums over all of its runs, one run at a time.

    `runs`: of all trials together at most; as many as trials where each has one seed.
    """

    trials: int
    runs: int
    rounds: tuple[int, int]
    epochs_most: int
    epochs_expected: int
    seconds_most: float
    seconds_expected: float
    disk_mib: float
    at_once: int
    cpus: float
    gpus: float
    cluster: dict[str, float]
    measured: Measured
    confirming: int = 0

    @property
    def confirm_s(self) -> float:
        """The runs that confirm the best trials, as many at once as there is room for; the last may run alone."""
        return math.ceil(self.confirming / self.at_once) * self.seconds_most / max(self.runs, 1)

    @property
    def wall_s(self) -> float:
        """From the command to the prompt, on a machine that stays as busy as it was when a step was measured.

        When no trial is left to begin, those at once end one after the other, over the time of one trial.
        """
        each = self.seconds_expected / max(self.runs, 1)
        alone = each * (self.at_once - 1) / self.at_once / 2
        return STARTS * self.measured.start_s + self.seconds_expected / self.at_once + alone + self.confirm_s


def estimate(plan: Plan, measure: Callable[[RSSTConfig, int], Measured] = measure_in_child) -> Estimate:
    """Estimate `plan`; takes some seconds, because it trains. `measure(config, n)` times n copies side by side."""
    settings, sized_draws = plan.settings, list(zip(plan.to_train, dense_sizes(plan.to_train), strict=True))
    largest, largest_size = max(sized_draws, key=_step_macs)
    nodes = nodes_of(settings) if address(settings) else [_this_machine()]
    found, cpus, gpus, at_once = _measured(settings, largest, nodes, measure)
    courses = [course_of(config, found, size.gmacs / largest_size.gmacs, size.params) for config, size in sized_draws]
    share_of_epochs, share_of_seconds = _expected_share(settings, courses)
    trials = settings.trials
    if plan.sweep is not None:  # what its unfinished trials have done is not taken off
        view = plan.sweep.view
        trials -= len(view.trials) - len(view.unfinished) - len(plan.again)
    runs = trials * settings.replicates
    scale = runs / len(courses)
    epochs, seconds = (
        scale * sum(c.epochs * len(c.shares) for c in courses),
        scale * sum(sum(c.seconds) for c in courses),
    )
    return Estimate(
        trials=trials,
        runs=runs,
        rounds=(min(len(c.shares) for c in courses), max(len(c.shares) for c in courses)),
        epochs_most=round(epochs),
        epochs_expected=round(epochs * share_of_epochs),
        seconds_most=seconds,
        seconds_expected=seconds * share_of_seconds,
        disk_mib=max(c.disk_mib for c in courses),
        at_once=at_once,
        cpus=cpus,
        gpus=gpus,
        cluster=capacity.total(nodes),
        measured=found,
        confirming=min(settings.confirm or 0, settings.trials) * settings.confirm_seeds,
    )


def largest_trial(plan: Plan) -> RSSTConfig:
    """The drawn trial whose step takes most."""
    return max(zip(plan.to_train, dense_sizes(plan.to_train), strict=True), key=_step_macs)[0]


def _step_macs(drawn: tuple[RSSTConfig, Size]) -> float:
    return drawn[1].gmacs * drawn[0].batch_size


def _this_machine() -> capacity.Node:
    """What a local Ray would have, without starting it."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count()), "memory": float(memory)}


def _measured(
    settings: SweepSettings,
    largest: RSSTConfig,
    nodes: Sequence[capacity.Node],
    measure: Callable[[RSSTConfig, int], Measured],
) -> tuple[Measured, float, float, int]:
    """A step, measured with as many at once as this machine will run; CPUs and GPUs of a trial; trials at once."""
    wanted = settings.cpus_per_trial, settings.gpus_per_trial
    found = measure(largest, 1) if "auto" in wanted else None
    cpus, gpus = resources.resolve(*wanted, found, largest.num_threads, capacity.roomiest(nodes))
    on_cluster = address(settings) is not None
    at_once = min(capacity.trials_at_once(settings, cpus, gpus, nodes, cluster=on_cluster), settings.trials)
    copies = 1
    if not on_cluster:
        copies = max(1, min(at_once, int(1 / gpus + 1e-9) if gpus else os.cpu_count() or 1))
    if found is None or copies > 1:
        found = measure(largest, copies)
    return found, cpus, gpus, at_once


def _expected_share(settings: SweepSettings, courses: Sequence[Course]) -> tuple[float, float]:
    """Shares of all epochs and of all seconds that early stopping leaves in `IMAGINED_SWEEPS` imagined sweeps.

    Nothing is known of the trials' order: trials of random merit pass the sweep's own rungs, and those that reach their
    end get all of their seeds.
    """
    if settings.stopping != "halving" or settings.target_density is None:
        return 1.0, 1.0
    trials = [courses[number % len(courses)] for number in range(settings.trials)]
    epochs = seconds = 0.0
    for seed in range(IMAGINED_SWEEPS):
        merit = random.Random(seed)
        halving = EqualShareHalving(settings.target_density, settings.rungs, settings.reduction_factor)
        for number, course in enumerate(trials):
            value = merit.random()
            for position, share in enumerate(course.shares):
                epochs, seconds = epochs + course.epochs, seconds + course.seconds[position]
                last = position == len(course.shares) - 1
                decision = halving.enter(str(number), share, value, last_round=last)
                if decision and decision.stop:
                    break
            else:
                epochs += (settings.replicates - 1) * course.epochs * len(course.shares)
                seconds += (settings.replicates - 1) * sum(course.seconds)
    most = sum(c.epochs * len(c.shares) for c in trials), sum(sum(c.seconds) for c in trials)
    sweeps = IMAGINED_SWEEPS * settings.replicates
    return epochs / most[0] / sweeps, seconds / most[1] / sweeps


def lines(plan: Plan, found: Estimate) -> list[str]:
    """The estimate as a person reads it."""
    low, high = found.rounds
    given = not plan.resumes and len(plan.points) >= plan.settings.trials
    gpu = f", {found.gpus:g} GPU" if found.gpus else ""
    there = f"{found.cluster.get('CPU', 0):g} CPUs, {found.cluster.get('GPU', 0):g} GPUs"
    hours = [seconds / found.at_once for seconds in (found.seconds_most, found.seconds_expected)]
    rounds = str(low) if low == high else f"{low} to {high}"
    stopping = " if trials are of random merit" if plan.settings.stopping == "halving" else ""
    return [
        f"Plan of the sweep {plan.folder.name} (nothing has been written)",
        f"  trials          {found.trials}{' left' if plan.resumes else ''}, {rounds} rounds each "
        f"(as in {len(plan.to_train)} {'of them' if given else 'random draws'})",
        *_seeds(plan.settings, found),
        *_points(plan),
        f"  epochs          {found.epochs_most:,} at most, about {found.epochs_expected:,} expected "
        f"(stopping = {plan.settings.stopping}{stopping})",
        f"  time            {duration(hours[0])} at most, about {duration(hours[1])} expected, {found.at_once} trials "
        "at once",
        f"  measured        {found.measured.times}",
        *_confirmed(plan.settings, found),
        f"  in all          about {duration(found.wall_s)} from the command to the prompt, with start and end, if the "
        "machine stays as busy",
        f"  memory a trial  {found.measured.memory}",
        f"  disk a trial    {mib(found.disk_mib)} at most; the sweep {mib(found.disk_mib * found.runs)}",
        f"  resources       {found.cpus:g} CPU{gpu} a trial; there are {there}",
        f"  folder          {plan.folder.path}",
        *([f"  limits          {plan.reach.line}"] if plan.reach.line else []),
        *_budgets(plan),
        *([f"  {plan.warm.line}"] if plan.warm.line else []),
    ]


def _seeds(settings: SweepSettings, found: Estimate) -> list[str]:
    """How many runs that is, where a trial has several."""
    if settings.replicates == 1:
        return []
    fewer = "a trial that falls behind gets fewer, which is not taken off here"
    return [f"  runs            {found.runs} at most, {settings.replicates} seeds for each trial; {fewer}"]


def _points(plan: Plan) -> list[str]:
    """Who gives the trials, where some are points to be tried first."""
    if not plan.points:
        return []
    by = Counter(str(point["by"]) for point in plan.points[: plan.settings.trials])
    by[plan.settings.sampler] += plan.settings.trials - by.total()
    return [f"  suggested by    {', '.join(f'{name} {count}' for name, count in by.items() if count)}"]


def _budgets(plan: Plan) -> list[str]:
    """What may be spent, and what a sweep that goes on has spent of it."""
    settings = dict(plan.settings)
    if not (plan.resumes or limits(settings)):
        return []
    spent = told(plan.sweep.view.spending if plan.sweep else Spending(), settings)
    rest = "; then trials end with their round, and a resume goes on" if limits(settings) else ""
    return [f"  spent so far    {spent}{rest}"]


def _confirmed(settings: SweepSettings, found: Estimate) -> list[str]:
    """What training the best trials again takes, where the sweep does so at its end."""
    if not found.confirming:
        return []
    each = f"the best {settings.confirm} with {settings.confirm_seeds} fresh seeds each"
    return [f"  confirm         {found.confirming} runs more at the end ({each}): {duration(found.confirm_s)}"]
