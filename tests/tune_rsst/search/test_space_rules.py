"""Nothing that a user or a space says does nothing in silence: refused with its name, or said before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainables.rsst.config import ConfigError
from tune_rsst.planning import begin
from tune_rsst.planning.plan import Plan
from tune_rsst.settings import written


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def planned(*words: str, knobs: str = "", file: Path | None = None) -> Plan:
    """A sweep over a space of a file whose extra knobs are the text `knobs`; without it over the default space."""
    if file is None:
        made = begin.make_plan(written.given(None, words), None, False)
    else:
        lines = '{"dataset": "digits", "epochs": 2, "warmup": 0, "lr": trial.suggest_float("lr", 1e-4, 1e-3)'
        file.write_text(f"def space(trial):\n    lr = trial\n    return {lines}, {knobs}}}\n", encoding="utf-8")
        made = begin.make_plan(written.given(None, [f"space={file}:space", *words]), None, False)
    assert isinstance(made, Plan)
    return made


def refusal(*words: str, knobs: str = "", file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        planned(*words, knobs=knobs, file=file)
    assert "\n" not in str(refused.value)
    return str(refused.value)


OVERRULED = {
    '"seed": 3': "seed",
    '"seed": trial.suggest_int("seed", 0, 9)': "seed",
    '"split_seed": 3': "split_seed",
    '"save_dir": "here"': "save_dir",
    '"on_missing_weights": "scratch"': "on_missing_weights",
    '"target_density": 0.5': "target_density",
    '"target_density": trial.suggest_float("target_density", 0.2, 0.8)': "target_density",
}


@pytest.mark.parametrize("knobs", OVERRULED)
def test_a_space_that_the_sweep_would_overrule_is_refused(tmp_path: Path, knobs: str) -> None:
    name = OVERRULED[knobs]
    line = refusal(knobs=knobs, file=tmp_path / "mine.py")
    assert line.startswith(f"space = {tmp_path}/mine.py:space: valid is a space without {name}; it gives {name}, which")


UNSEARCHABLE: dict[str, tuple[str, tuple[str, ...], str]] = {
    "device": ('"device": trial.suggest_categorical("device", ["cpu", "auto"])', (), "no number of a trial depends"),
    "data": ('"data": trial.suggest_categorical("data", ["a", "b"])', (), "no number of a trial depends on it"),
    "micro_batch_size": (
        '"micro_batch_size": trial.suggest_int("micro_batch_size", 1, 8)',
        (),
        "no number of a trial depends on it",
    ),
    "exponents": (
        '"RST_schedule": "x", "exponents": trial.suggest_float("exponents", 1, 3)',
        (),
        "it acts with RST_schedule = exp_custom_exponents",
    ),
    "reg_granularity_prune": (
        '"reg_granularity_prune": trial.suggest_float("reg_granularity_prune", 0.1, 1)',
        ("struct=refill",),
        "it acts with struct = rsst",
    ),
    "calibration_images": (
        '"criteria": "magnitude", "calibration_images": trial.suggest_int("calibration_images", 8, 64)',
        (),
        "it acts with criteria = l1, l2 or saliency",
    ),
    "patch_embed": (
        '"patch_embed": trial.suggest_categorical("patch_embed", ["resample", "reinit"])',
        (),
        "it acts with pretrained weights",
    ),
    "lr_schedule": (
        '"lr_schedule": trial.suggest_categorical("lr_schedule", ["cosine", "multistep"])',
        ("warmup=2",),
        "it acts with warmup below epochs",
    ),
    "rate": (
        '"rate": trial.suggest_float("rate", 0.2, 0.5)',
        ("prunings=3",),
        "a fixed knob says the number of prunings",
    ),
    "rewind": (
        '"rewind": trial.suggest_categorical("rewind", ["init", "none"])',
        ("pruning_times=1", "stopping=none"),
        "it acts with more than one round",
    ),
}


@pytest.mark.parametrize("name", UNSEARCHABLE)
def test_a_space_that_searches_what_does_nothing_is_refused(tmp_path: Path, name: str) -> None:
    knobs, words, why = UNSEARCHABLE[name]
    line = refusal(*words, knobs=knobs, file=tmp_path / "mine.py")
    assert f"valid is a space that does not search {name} here; {why}" in line and line.startswith("space = ")


@pytest.mark.parametrize(
    "knobs",
    [
        '"device": trial.suggest_categorical("where", ["cpu", "auto"])',
        '"data": trial.suggest_categorical("which", ["a", "b"])',
        '"micro_batch_size": trial.suggest_categorical("some", [4, 8])',
    ],
)
def test_a_knob_that_is_in_no_fingerprint_is_one_for_all_trials(tmp_path: Path, knobs: str) -> None:
    assert "equal trials would not be compared alike" in refusal(knobs=knobs, file=tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("gpus_per_trial=2",),
            "gpus_per_trial = 2: valid is at most 1, a share of one GPU, or auto: a trial computes",
        ),
        (("gpus_per_trial=1.5",), "gpus_per_trial = 1.5: valid is at most 1"),
        (("gpus_per_trial=1", "device=cpu"), "gpus_per_trial = 1.0: valid is 0 with device = cpu"),
        (("device=cuda",), "device = cuda: valid is auto or cpu with gpus_per_trial = 0"),
        (("max_gmacs=1",), "max_gmacs = 1.0: valid is given with objective constrained or pareto"),
        (("pareto_against=gmacs",), "pareto_against = gmacs: valid is given with objective pareto"),
        (("largest_density=0.5",), "largest_density = 0.5: valid is given with objective constrained or pareto"),
        (("save_dir=x",), "save_dir = x: valid is not a setting of a sweep"),
        (("prunings=3", "rate=0.15"), "prunings = 3: valid is 8, which follows from rate = 0.15"),
    ],
    ids=str,
)
def test_a_setting_that_would_do_nothing_is_refused(words: tuple[str, ...], says: str) -> None:
    assert refusal(*words).startswith(says)


@pytest.mark.parametrize(
    "words",
    [
        ("gpus_per_trial=0.5",),
        ("gpus_per_trial=1", "device=cuda"),
        ("startup_trials=3", "sampler=gp"),
        ("startup_trials=8", "sampler=random"),  # what it is anyway, as a settings.yaml has it
        ("objective=pareto", "largest_density=0.5"),
        ("prunings=3", "pruning_times=4", "target_density=0.3"),
    ],
    ids=str,
)
def test_one_that_acts_is_taken(words: tuple[str, ...]) -> None:
    assert planned(*words).draws


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("rate=0.4",),
            "rate = 0.4 with target_density = 0.3 means 3 prunings; each removes 0.3306, the effective rate",
        ),
        (
            ("exponents=3", "RST_schedule=x"),
            "exponents = 3.0 does nothing here: it acts with RST_schedule = exp_custom",
        ),
        (
            ("startup_trials=3", "sampler=random"),
            "startup_trials = 3 does nothing here: it acts with sampler = tpe or gp",
        ),
        (("startup_trials=3", "sampler=qmc"), "startup_trials = 3 does nothing here: it acts with sampler = tpe or gp"),
        (
            ("startup_trials=3", "sampler=nsga2"),
            "startup_trials = 3 does nothing here: it acts with sampler = tpe or gp",
        ),
        (("rungs=[0.5]", "stopping=none"), "rungs = (0.5,) does nothing here: it acts with stopping = halving"),
        (
            ("reduction_factor=3", "stopping=none"),
            "reduction_factor = 3.0 does nothing here: it acts with stopping = halving",
        ),
        (("rate=0.4", "objective=pareto"), "rate = 0.4 is rounded in each trial so that it ends at its own target"),
        (("struct=refill", "penalty_form=l2"), "penalty_form = l2 does nothing here: it acts with struct = rsst"),
        (("patch_embed=reinit",), "patch_embed = reinit does nothing here: it acts with pretrained weights"),
        (("data=x",), "does nothing here: it acts with dataset = cifar10, cifar100 or folder"),
        (("on_missing_weights=scratch", "criteria=magnitude", "calibration_images=9"), "calibration_images = 9 does"),
        (("cpus_per_trial=2",), "2 CPUs are set aside for a trial, and it computes on num_threads = 1 of them"),
    ],
    ids=str,
)
def test_what_does_nothing_or_is_rounded_is_said_before_it_runs(words: tuple[str, ...], says: str) -> None:
    assert says in (planned(*words).note or "")


@pytest.mark.parametrize("words", [(), ("rate=0.33058",), ("prunings=3",), ("exponents=3",), ("objective=pareto",)])
def test_what_acts_needs_no_word(words: tuple[str, ...]) -> None:
    note = planned(*words).note
    assert note is None or (words[0].startswith("rate") and "means 3 prunings" in note)


def test_a_space_that_searches_rate_to_a_target_works_and_hears_what_acts(tmp_path: Path) -> None:
    made = planned(knobs='"rate": trial.suggest_float("rate", 0.2, 0.5)', file=tmp_path / "mine.py")
    assert {c.prunings for c in made.draws} == {2, 3, 4, 5, 6} & {c.prunings for c in made.draws}
    assert "acts only through the number of prunings to the target; the space can suggest prunings" in str(made.note)


def drawn(made: Plan) -> set[str]:
    return {name for draw in (made.space.draw(FixedOrLow(), made.settings.fixed_in_trials),) for name in draw.params}


class FixedOrLow:
    """A trial that answers with the least value, and keeps no ranges."""

    distributions: ClassVar[dict[str, Any]] = {}

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        return low

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return low

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[0]


@pytest.mark.parametrize(
    ("words", "has", "has_not"),
    [
        ((), "prunings", "rate"),
        (("rate=0.4",), "", "rate prunings"),
        (("prunings=3",), "", "rate prunings"),
        (("pruning_times=4", "target_density=0.3"), "", "rate prunings"),
        (("pruning_times=4", "stopping=none"), "rate", "prunings"),
        (("objective=pareto",), "rate target_density", "prunings"),
        (("objective=pareto", "rate=0.4"), "target_density", "rate prunings"),
        (("struct=refill",), "prunings", "reg_granularity_prune"),
    ],
    ids=str,
)
def test_a_space_with_a_target_searches_prunings(words: tuple[str, ...], has: str, has_not: str) -> None:
    found = drawn(planned(*words))
    assert set(has.split()) <= found and not set(has_not.split()) & found


def test_a_rate_is_rounded_to_the_target_of_each_trial() -> None:
    """Where the target is searched the fixed rate stays as the user gave it, in the sweep's own settings."""
    made = planned("objective=pareto", "rate=0.4")
    assert made.settings.fixed["rate"] == 0.4 and len({c.rate for c in made.draws}) > 3
    assert all(c.rate <= 0.4 + 1e-9 and c.rate == pytest.approx(1 - c.target_density ** (1 / c.prunings))
               for c in made.draws if c.target_density)  # fmt: skip
