"""A trial's pictures: its rounds, its penalty, its layers, its classes, as PNG.

In: a trial's name, knobs, start and round events. Out: matplotlib figures by name, and files.
A single run and a sweep draw the same ones. Nothing here uses pyplot, so no state is kept.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainables.errors import install
from trainables.plugins import is_plugin
from trainables.rsst.event import read_report
from trainables.rsst.metrics import uneven
from trainables.rsst.pruning.ramps import DEPTH, pressed, ramp
from trainables.storage.files import replaced
from trainables.text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 100
POINTS = 200
MANY_CELLS = 200  # a map of more cells has no numbers in them
AFTER, BEFORE, SIZE = "#1d4ed8", "#94a3b8", "#c2410c"
CAPTIONS = {
    "rounds": "Accuracy and density over the rounds, before and after hardening",
    "penalty": "The penalty over one round",
    "layers": "Kept heads and neurons per layer",
    "classes": "Accuracy of each class, dense and after the last hardened round (where classes are uneven)",
}
REPORT = "report.json"
MOST_CLASSES, LONGEST_NAME = 40, 60


class Trial(Protocol):
    """What is drawn. `round_events`: the metrics of each round event, oldest first."""

    @property
    def trial(self) -> str:
        """Its name, for titles."""

    @property
    def knobs(self) -> Mapping[str, Any]:
        """All of them."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """The metrics of its start, as far as they are known."""

    @property
    def round_events(self) -> Sequence[Mapping[str, Any]]:
        """One for each hardened round."""


@dataclass(frozen=True)
class SingleTrial:
    """A trial that ran alone."""

    trial: str
    knobs: Mapping[str, Any]
    origin: Mapping[str, Any]
    round_events: Sequence[Mapping[str, Any]]


def trial_figures(trial: Trial) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of what `trial` has data for; a trial that never finished a round has only its penalty."""
    if trial.round_events:
        yield "rounds", rounds_figure(trial)
    drawn = not is_plugin(trial.knobs.get("RST_schedule"))  # a figure runs no code of the user's
    if drawn and trial.knobs.get("struct", "rsst") == "rsst" and {"RST_schedule", "epochs"} <= trial.knobs.keys():
        yield "penalty", penalty_figure(trial)
    if any("heads_kept_per_layer" in event for event in trial.round_events):
        yield "layers", layers_figure(trial)
    if uneven(trial.origin) and any("val_class_accuracy" in event for event in trial.round_events):
        yield "classes", classes_figure(trial)


def draw_run(folder: Path) -> Path | str:
    """Draw the pictures of the finished run in `folder`; where they are, or why there are none."""
    report = read_report(folder / REPORT)
    try:
        save_trial(SingleTrial(folder.name, report["config"], report["start"], report["rounds"]), folder / "pictures")
    except ImportError as missing:
        return f"none, {missing.name} is missing ({install(missing.name or '')})"
    return folder / "pictures"


def save_trial(trial: Trial, folder: Path) -> list[Path]:
    """Write the pictures of `trial` into `folder`, which is made if missing; returns their paths."""
    return save(trial_figures(trial), folder)


def save(figures: Iterable[tuple[str, Figure | str]], folder: Path, **how: Any) -> list[Path]:
    """Write those that are figures into `folder`, as NAME.png; `how` goes to matplotlib. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures:
        if not isinstance(figure, str):
            paths.append(folder / f"{name}.png")
            with replaced(paths[-1]) as new, warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # of a folder's name, for the title
                figure.savefig(new, format="png", dpi=DPI, **how)
    return paths


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def rounds_figure(trial: Trial) -> Figure:
    """Left axis: validation accuracy before and after hardening; right axis: density; against the round."""
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    events = trial.round_events
    rounds = [event["round"] for event in events]
    before = [e.get("val_top1_before_hardening", float("nan")) for e in events]
    axes.plot(rounds, before, "D--", mfc="none", ms=10, color=BEFORE, label="val_top1 before hardening")
    axes.plot(rounds, [e["val_top1"] for e in events], "o-", color=AFTER, label="val_top1 after hardening")
    size = axes.twinx()
    size.step(rounds, [e["density"] for e in events], "s:", where="mid", color=SIZE, label="density")
    size.set_ylim(0, 1.05)
    size.set_ylabel("density (share of prunable parameters)", color=SIZE)
    axes.set(xlabel="round (number)", ylabel="validation accuracy (share)", xticks=rounds[:: max(1, len(rounds) // 15)])
    axes.set_title(f"{trial.trial}: accuracy and density over the rounds")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def penalty_figure(trial: Trial) -> Figure:
    """Left: λ over the epochs of a round; right: what is left of the doomed norm by the penalty's formula."""
    k = trial.knobs
    name, g, p, epochs = str(k["RST_schedule"]), float(k["reg_granularity_prune"]), float(k["exponents"]), k["epochs"]
    progress = [i / POINTS for i in range(POINTS + 1)]
    figure = new_figure(8, 4)
    axes = figure.subplots()
    at = [t * epochs for t in progress]
    axes.plot(at, [ramp(name, t, g, p) for t in progress], color=AFTER, label="λ")
    axes.set_xlabel("epochs of the round (epochs)")
    axes.set_ylabel("penalty coefficient λ (no unit)", color=AFTER)
    axes.grid(alpha=0.3)
    if k.get("penalty_form", "normalized") == "normalized":
        left = axes.twinx()
        shares = [math.exp(-DEPTH * g * pressed(name, t, g, p)) for t in progress]
        left.plot(at, shares, "--", color=SIZE)
        left.set_ylim(0, 1.05)
        left.set_ylabel("doomed norm left by the penalty alone (share)", color=SIZE)
    ramp_name = f"{name}, g = {g:.3g}" + (f", p = {p:.3g}" if name == "exp_custom_exponents" else "")
    axes.set_title(f"{trial.trial}: λ over a round ({ramp_name})")
    return figure


def layers_figure(trial: Trial) -> Figure:
    """Two maps, layers by rounds: heads kept and neurons kept."""
    events = [event for event in trial.round_events if "heads_kept_per_layer" in event]
    kinds = [kind for kind in ("heads", "neurons") if f"{kind}_kept_per_layer" in events[0]]
    layers = len(events[0]["heads_kept_per_layer"])
    figure = new_figure(5 * len(kinds), 2.2 + 0.3 * layers)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        _map(figure, axes, [e["round"] for e in events], [e[f"{kind}_kept_per_layer"] for e in events], kind)
    figure.suptitle(f"{trial.trial}: kept heads and neurons per layer")
    return figure


def classes_figure(trial: Trial) -> Figure:
    """Validation accuracy of the classes, dense and at the last round: the MOST_CLASSES least accurate ones."""
    events = [event["val_class_accuracy"] for event in trial.round_events if "val_class_accuracy" in event]
    dense, last = events[0], events[-1]
    named = trial.origin.get("images", {}).get("classes") or [f"class {number}" for number in range(len(last))]
    names = [shown(name, LONGEST_NAME).replace("$", r"\$") for name in named]  # a $ would begin a formula
    order = sorted((number for number, share in enumerate(last) if share is not None), key=lambda n: (last[n], n))
    least = order[:MOST_CLASSES]
    figure = new_figure(8, 1.6 + 0.25 * len(least))
    axes = figure.subplots()
    axes.barh(range(len(least)), [dense[n] for n in least], height=0.8, color=BEFORE, label="dense")
    axes.barh(range(len(least)), [last[n] for n in least], height=0.4, color=AFTER, label="after the last round")
    axes.set_yticks(range(len(least)), [names[n] for n in least])
    axes.invert_yaxis()
    axes.set(xlabel="validation accuracy (share)", ylabel="class (name)", xlim=(0, 1))
    some = f" (the {len(least)} least accurate of {len(order)})" if len(least) < len(order) else ""
    axes.set_title(f"{trial.trial}: accuracy of the classes{some}")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _map(figure: Figure, axes: Any, rounds: Sequence[int], counts: Sequence[Sequence[int]], kind: str) -> None:
    cells = [list(row) for row in zip(*counts, strict=True)]
    image = axes.imshow(cells, aspect="auto", cmap="Blues", vmin=0, origin="lower")
    axes.set_xticks(range(len(rounds)), [str(r) for r in rounds])
    axes.set(yticks=range(len(cells)), xlabel="round (number)", ylabel="layer (number)")
    figure.colorbar(image, ax=axes, label=f"{kind} kept (number)")
    if len(cells) * len(rounds) <= MANY_CELLS:
        most = max(map(max, cells))
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                axes.text(x, y, str(value), ha="center", va="center", color="white" if value > most / 2 else "black")
