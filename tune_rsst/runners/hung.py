"""Ends trials that hang, under Ray: their stack goes into their log, their process is killed, Tune continues them once.

In: Tune's running trials and their results; the signs of life in their stores. Out: killed processes, and a line `hung`
in the ledger for each. The rule is silence.py's; what is done on the node is end_process.py's.
Nothing here waits for a worker: a stopped process answers nobody.

A trial that hangs a second time before it has ended the round in which it hung has failed. Where the sweep is in a
bucket, stores are their nodes' own: a short task on the node reads the sign, four times within the limit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.text import duration
from tune_rsst.ledger.view import TrialView
from tune_rsst.runners.adapter import Adapter
from tune_rsst.runners.end_process import LOG, Examined, end_unless_alive, sign_in
from tune_rsst.runners.silence import Silence, limit_s, own_rounds_s
from tune_rsst.storage.folder import SweepFolder

if TYPE_CHECKING:
    from tune_rsst.intake import Intake

LOOK_EVERY_S, LOOKS_IN_A_LIMIT, LAST_WORD_S = 1.0, 4, 30.0
ANSWER_S = 60.0  # in which a node must have ended a process
log = logging.getLogger(__name__)


class _End(NamedTuple):
    """A process that is to be ended: its node's answer, the reason, Tune's count of failures before, and since when."""

    answer: Any
    reason: str
    failures: int
    since: float


class HungTrials(Adapter, Callback):
    """Tune's callback that watches. `last_failure`: Tune's count at which a trial is not continued any more."""

    def __init__(
        self, driver: Intake, folder: SweepFolder, last_failure: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.driver, self._folder, self._last_failure = driver, folder, last_failure
        self._clock = clock
        self._silence = Silence(clock)
        self._looks: dict[str, Any] = {}
        self._ends: dict[str, _End] = {}
        self._ended: set[str] = set()
        self._looked_at: dict[str, float] = {}

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        self._silence.heard(trial.config["trial_key"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._silence.heard(trial.config["trial_key"])

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.guarded(lambda: self._look(trials))

    def _look(self, trials: list[Trial]) -> None:
        live = {t.config["trial_key"]: t for t in trials if t.status in (Trial.RUNNING, Trial.PENDING) and _actor(t)}
        self._silence.passes({name: _actor(trial) for name, trial in live.items()})
        self._take_looks()
        for name, trial in live.items():
            if name in self._ends:
                self._take_end(name, trial, timeout_s=0)
                continue
            if name in self._ended:  # Tune has not heard of it yet
                continue
            view = self.driver.view.run(name)
            limit = self._limit(view, self._silence.of(name)[1])
            if limit is None:
                continue
            self._see(name, trial, self._silence.of(name)[0], limit)
            silent_s, _, sign = self._silence.of(name)
            if silent_s >= limit:
                self._end(name, trial, sign, silent_s)

    def _limit(self, view: TrialView, spoke: bool) -> float | None:
        settings = self.driver.settings
        return limit_s(settings.hung_after_s, settings.hung_first_round_s, own_rounds_s(view), spoke=spoke)

    def _store(self, name: str) -> Path:
        return self._folder.store(self.driver.view.run(name).fingerprint)

    # --- signs of life -------------------------------------------------------------------------------------------

    def _see(self, name: str, trial: Trial, silent_s: float, limit: float) -> None:
        """Look at the trial's sign, where it is long since something was heard."""
        remote = self.driver.settings.storage is not None
        every = limit / LOOKS_IN_A_LIMIT if remote else LOOK_EVERY_S
        last = self._looked_at.get(name, 0.0)
        if silent_s < last:  # something was heard since
            last = self._looked_at[name] = 0.0
        if silent_s < last + every:
            return
        self._looked_at[name] = silent_s
        if not remote:
            self._silence.saw(name, sign_in(self._store(name)))
        elif silent_s < limit and name not in self._looks and (place := _place(trial)):
            self._looks[name] = _on_node(place[0], sign_in, self._store(name))

    def _take_looks(self) -> None:
        for name, answer in list(self._looks.items()):
            if ray.wait([answer], timeout=0)[0]:
                del self._looks[name]
                self._silence.saw(name, _value(answer))

    # --- the end of a process ------------------------------------------------------------------------------------

    def _end(self, name: str, trial: Trial, sign: bytes | None, silent_s: float) -> None:
        """Have its process ended. Tune hears that the worker is lost, and counts how often it was."""
        if (place := _place(trial)) is None:
            return
        node, pid, host = place
        view = self.driver.view.run(name)
        again = bool(view.silences) and view.silences[-1]["round"] == len(view.round_events)
        before = trial.run_metadata.num_failures
        trial.run_metadata.num_failures = self._last_failure if again else min(before, self._last_failure - 1)
        reason = (
            f"{'it hung again: ' if again else ''}nothing was heard of it for {duration(silent_s)} in round "
            f"{min(len(view.round_events) + 1, view.rounds)}; its process {pid} on {host} was ended"
        )
        answer = _on_node(node, end_unless_alive, pid, self._store(name), sign)
        self._ends[name] = _End(answer, reason, before, self._clock())

    def _take_end(self, name: str, trial: Trial, timeout_s: float) -> None:
        """Write that its process was ended, once that is known; where it was not, the trial goes on."""
        end = self._ends[name]
        answered = bool(ray.wait([end.answer], timeout=timeout_s)[0])
        if not answered and self._clock() - end.since < ANSWER_S:
            return
        del self._ends[name]
        found = _value(end.answer) if answered else Examined(True, None)
        if found is not None and found.ended:
            self._ended.add(name)
            stack = f"its stack is in {self._store(name) / LOG}" if answered else "its node did not say its stack"
            self.driver.hung(name, f"{end.reason}, {stack}")
            _give_up(trial)
            return
        trial.run_metadata.num_failures = end.failures
        if found is not None:
            self._silence.saw(name, found.sign)

    def ended(self, trial: Trial) -> bool:
        """Whether the trial has lost its worker because it hung; the ledger has it then."""
        name = trial.config["trial_key"]
        if name in self._ends:
            self._take_end(name, trial, LAST_WORD_S)
        known = name in self._ended
        self._ended.discard(name)
        return known


def _give_up(trial: Trial) -> None:
    """Let Ray count the actor as dead, though its process may hang in the kernel and not hear SIGKILL yet."""
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor)


def _actor(trial: Trial) -> str:
    """The actor that has the trial, "" where none has."""
    actor = trial.temporary_state.ray_actor
    return actor._actor_id.hex() if actor is not None else ""


def _place(trial: Trial) -> tuple[str, int, str] | None:
    """Node, process and host of the trial's actor, from Ray's control store; None where it does not know them."""
    from ray._private.state import actors

    try:
        known = actors(_actor(trial))
        place = known["Address"]["NodeID"], int(known["Pid"]), str(known["Address"]["IPAddress"])
    except Exception:  # Ray's own table, and its own errors: the next look asks again
        log.debug("the place of a trial is not known", exc_info=True)
        return None
    return place if place[1] else None


def _on_node(node: str, action: Callable[..., Any], *given: Any) -> Any:
    """Let a short task on the node do `action`; it needs no CPU to be free."""
    return _task(action).options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*given)


@cache
def _task(action: Callable[..., Any]) -> Any:
    return ray.remote(num_cpus=0, max_retries=0)(action)


def _value(answer: Any) -> Any:
    """What the task returned; None where it failed: its node is gone, and Ray deals with its trials."""
    try:
        return ray.get(answer)
    except ray.exceptions.RayError:
        log.debug("a look at a trial failed", exc_info=True)
        return None
