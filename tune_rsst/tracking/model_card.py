"""The card of a model that is taken away: what it is, how well it does, how to use it, how it was found.

Its head is what the Hugging Face hub reads of a model card. Everything in it is from the ledger and from the model's
own file. It names no folder, machine or person of those who trained it: a card is read by others.

In: a chosen model. Out: Markdown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.provenance import versions
from trainables.rsst.config import KNOBS
from trainables.rsst.metrics import METRICS
from trainables.storage.files import replaced
from trainables.text import counted, in_markdown, one_line, shown
from tune_rsst.ledger.objective import Objective
from tune_rsst.results.columns import KNOB, counts, searched
from tune_rsst.results.commands import of_a_rerun
from tune_rsst.results.confirmed.table import remark
from tune_rsst.results.export import Chosen
from tune_rsst.results.ranking import best_of

CARD = "model_card.md"  # README.md in a repository
TOLD = (
    *("val_top1", "test_top1", "val_balanced_accuracy", "test_balanced_accuracy", "dense_top1", "top1_drop"),
    *("kept_share", "density", "params", "gmacs", "latency_ms"),
)
CLASSES, LONGEST = 50, 100  # classes that are named; characters of a value
USE = """
from load_model import inputs, load, preprocessing  # beside the model; needs torch, timm, safetensors, Pillow

logits = load()(inputs(["a.png", "b.png"]))
print([preprocessing()["classes"][number] for number in logits.argmax(dim=1)])
"""


def write_card(chosen: Chosen, folder: Path, name: str = "") -> Path:
    """Write the card of `chosen` into `folder`; `name`: of the repository, else sweep and trial."""
    with replaced(folder / CARD) as new:
        new.write_text(card(chosen, name), encoding="utf-8")
    return folder / CARD


def card(chosen: Chosen, name: str = "") -> str:
    """The card as text."""
    at = "" if chosen.round is None else f", round {chosen.round}"
    called = name or f"{chosen.view.name}/{chosen.trial.trial}{at}"
    parts = (_what(chosen), _reached(chosen), _use(chosen), _found(chosen), _knobs(chosen))
    lines = ["---", _head(chosen, called), "---", "", f"# {in_markdown(one_line(called))}", ""]
    return "\n".join([*lines, *(line for part in parts for line in (*part, ""))])


def _head(chosen: Chosen, called: str) -> str:
    """The hub's own part: YAML that its pages, searches and leaderboards read."""
    from huggingface_hub import EvalResult, ModelCardData

    images = str(chosen.model.facts.images.get("name", chosen.trial.knobs.get("dataset", "")))
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=one_line(images),
            dataset_name=one_line(images),
            dataset_split=part,
            metric_type="accuracy",
            metric_value=chosen.metrics[metric],
            metric_name=metric,
        )
        for part, metric in (("validation", "val_top1"), ("test", "test_top1"))
        if metric in chosen.metrics
    ]
    known: dict[str, Any] = {"model_name": one_line(called), "eval_results": results} if results else {}
    tags = ["vision-transformer", "pruning", "structured-pruning", "rsst"]
    return str(
        ModelCardData(library_name="tune-rsst", pipeline_tag="image-classification", tags=tags, **known).to_yaml()
    )


def _what(chosen: Chosen) -> list[str]:
    arch, metrics = chosen.model.facts.architecture, chosen.metrics
    start = "pretrained weights" if metrics.get("init_effective") == "pretrained" else "random weights"
    there = "is not there any more: no mask is needed, and no special library"
    gone = "is zero in the weights" if metrics.get("compacted") is False else there
    return [
        f"A Vision Transformer for images of {in_markdown(chosen.model.facts.images.get('name', 'one data set'))}, "
        f"pruned by RSST. It has {counted(len(arch.heads), 'block')}, with {sum(arch.heads)} attention heads and "
        f"{sum(arch.neurons)} MLP neurons in all. What was pruned {gone}. It began with {start}."
    ]


def _reached(chosen: Chosen) -> list[str]:
    lines = ["## Results", "", "| metric | value | what it is |", "|---|---|---|"]
    for name in TOLD:
        if chosen.metrics.get(name) is not None:
            metric = METRICS[name]
            unit = f" {metric.unit}" if metric.unit not in ("", "share", "count") else ""
            where = f", on {chosen.metrics.get('device_name', 'an unknown device')}" if metric.unit == "ms" else ""
            value = f"{metric.text(chosen.metrics[name])}{unit}"
            lines.append(f"| `{name}` | {value} | {in_markdown(metric.help + where)} |")
    best, objective = best_of(chosen.view), Objective.of(chosen.view.settings)
    if chosen.round is None and best is not None and best.trial == chosen.trial.trial:
        among = counted(len(chosen.view.trials), "trial")
        if objective.metric.startswith("val_"):
            lines += ["", f"Of {among} the validation images chose this one, so `val_top1` is somewhat too good."]
        if line := remark(chosen.view):
            lines += ["", f"{in_markdown(line)}."]
    if not any(name.startswith("test_") for name in objective.metrics):
        lines += ["", "The test images chose nothing."]
    return lines


def _use(chosen: Chosen) -> list[str]:
    images = chosen.model.facts.images
    lines = ["## Use", "", "```python", USE.strip(), "```"]
    if images:
        side, colour = images["img_size"], "RGB" if images["in_chans"] == 3 else "grey"
        classes = [shown(str(name), LONGEST) for name in images["classes"]]
        more = f", … ({len(classes)} in all)" if len(classes) > CLASSES else ""
        lines += [
            "",
            f"It takes {colour} images of {side} × {side} pixels ({in_markdown(images['how_resized'])}). "
            f"Classes in order: {in_markdown(', '.join(classes[:CLASSES]))}{more}. `preprocessing.json` has all of "
            "this, with mean and standard deviation.",
        ]
    return lines


def _found(chosen: Chosen) -> list[str]:
    view, trial = chosen.view, chosen.trial
    names = ", ".join(name.removeprefix(KNOB) for name in searched(view)) or "nothing"
    by = ", ".join(f"{package} {number}" for package, number in versions().items())
    return [
        "## How it was found",
        "",
        f"By tune-rsst: sweep {in_markdown(view.name)} ({in_markdown(counts(view))}), trial {trial.trial}.",
        f"Searched: {in_markdown(names)}. Objective: {in_markdown(Objective.of(view.settings).words)}.",
        f"Fingerprint of the trial `{trial.fingerprint}`; digest of its images "
        f"`{chosen.metrics.get('data_digest', 'unknown')}`. Exported with {in_markdown(by)}.",
    ]


def _knobs(chosen: Chosen) -> list[str]:
    """All knobs of the trial; of a path the last part."""
    lines = ["## Hyperparameters", "", "| knob | value |", "|---|---|"]
    for name, value in of_a_rerun(chosen.trial.knobs).items():
        if (name in KNOBS and KNOBS[name].path) or "/" in str(value):
            value = Path(str(value)).name
        lines.append(f"| `{in_markdown(name)}` | {in_markdown(shown(value, LONGEST))} |")
    return lines
