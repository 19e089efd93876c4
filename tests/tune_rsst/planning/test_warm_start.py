"""Former trials guide a new sweep: only those that it could have given itself, and what is left out is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import save_file

from tests.tune_rsst.fake_sweep import FakeSweep, events, few, settings_of, tiny
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from tune_rsst.ledger.file import Ledger
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.warm_start import WarmStart, gather
from tune_rsst.results import as_json
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.search.spaces import Space, samples
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

TINY = Space("tiny", tiny)
USED = "stopping=none"


def narrow(trial: Any) -> dict[str, Any]:
    return {**fixed_rate(trial), "rate": trial.suggest_float("rate", 0.35, 0.4)}


def fixed_rate(trial: Any) -> dict[str, Any]:
    lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    return {"dataset": "digits", "epochs": 2, "warmup": 0, "rate": 0.4, "lr": lr}


def by_count(trial: Any) -> dict[str, Any]:
    lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    prunings = trial.suggest_int("prunings", 1, 6)
    return {"dataset": "digits", "epochs": 2, "warmup": 0, "prunings": prunings, "lr": lr}


def from_weights(trial: Any) -> dict[str, Any]:
    return {**tiny(trial), "pretrained": True}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))


def former(name: str, space: Space = TINY, *words: str) -> FakeSweep:
    folder = home.home() / name
    folder.mkdir(parents=True)
    sweep = FakeSweep(folder, space, settings_of(space, "trials=10", *words))
    sweep.run()
    sweep.driver.record("sweep_ended")
    return sweep


def warm(names: str, space: Space = TINY, *words: str) -> tuple[Any, WarmStart]:
    settings = settings_of(space, f"warm_start={names}", "seed=7", *words)
    return settings, gather(settings, space, SweepWeights())


def begin(folder: Path, space: Space, settings: Any, found: WarmStart) -> FakeSweep:
    folder.mkdir(parents=True, exist_ok=True)
    return FakeSweep(folder, space, settings, **found.record())


def test_finished_trials_are_in_the_study_before_the_first_suggestion_and_a_resume_keeps_them(tmp_path: Path) -> None:
    old = former("old")
    done = [t for t in old.view.trials.values() if t.state == "finished"]
    settings, found = warm("old", TINY, "trials=4", "startup_trials=3")
    assert [t["params"] for t in found.trials] == [t.params for t in done]
    assert dict(found.left_out) == {"stopped": 10 - len(done)}
    assert found.line and f"{len(done)} former trials" in found.line and "stopped" in found.line
    sweep = begin(tmp_path / "new", TINY, settings, found)
    study = sweep.searcher.study
    assert [t.value for t in study.trials] == [t.final["val_top1"] for t in done]
    sweep.run(reports=5)
    sweep.ledger.close()
    again = begin(tmp_path / "new", TINY, settings, WarmStart())
    assert [t.params for t in again.searcher.study.trials[: len(done)]] == [t.params for t in done]
    again.run()
    assert len(again.view.trials) == 4 and min(t.number for t in again.view.trials.values()) == len(done)
    shown = as_json.as_json(Sweep(SweepFolder(tmp_path / "new"), again.view, "finished"), None)
    assert shown["warm_start"] == sorted(f"old/{t.trial}" for t in done)
    assert {t["id"] for t in shown["trials"]} == set(again.view.trials)


def test_the_sampler_learns_from_them(tmp_path: Path) -> None:
    """The formula's best lr is 1e-3: with former trials the first suggestions lie nearer than random ones do."""
    former("old", TINY, "trials=30", USED)

    def distance(name: str, *words: str) -> float:
        settings = settings_of(TINY, "trials=6", USED, *words)
        found = gather(settings, TINY, SweepWeights())
        sweep = begin(tmp_path / name, TINY, settings, found)
        sweep.run()
        return sum(abs(t.params["lr"] - 1e-3) for t in sweep.view.trials.values()) / len(sweep.view.trials)

    guided = [distance(f"warm{seed}", "warm_start=old", f"seed={seed}") for seed in range(7, 12)]
    cold = [distance(f"cold{seed}", f"seed={seed}") for seed in range(7, 12)]
    assert sum(guided) < 0.75 * sum(cold)


@pytest.mark.parametrize(
    ("space", "words", "reason"),
    [
        (Space("narrow", narrow), (), "outside this space's ranges"),
        (TINY, ("epochs=3",), "with another epochs"),
        (TINY, ("target_density=0.2",), "with another target_density"),
        (TINY, ("objective=constrained", "max_latency_ms=9"), "without a number that the objective asks for"),
    ],
)
def test_what_this_sweep_could_not_have_given_is_left_out(space: Space, words: tuple[str, ...], reason: str) -> None:
    former("old", TINY, USED)
    settings = settings_of(space, "warm_start=old", *words)
    try:
        left = dict(gather(settings, space, SweepWeights()).left_out)
    except ConfigError as error:
        left = {reason: 10} if reason in str(error) else {}
    assert left.get(reason, 0) >= 3


def test_a_knob_that_one_sweep_fixes_and_the_other_searches_is_taken_from_the_trial() -> None:
    former("old", Space("fixed", fixed_rate), USED)
    _, found = warm("old", TINY, USED)
    assert {t["params"]["rate"] for t in found.trials} == {0.35} and len(found.trials) == 10, "as many prunings"


def test_trials_that_searched_rate_guide_a_space_that_searches_prunings() -> None:
    former("old", TINY, USED)
    settings, found = warm("old", Space("by count", by_count), USED)
    assert len(found.trials) == 10 and {t["params"]["prunings"] for t in found.trials} == {2, 3}
    assert settings.target_density == 0.3


def test_trials_of_another_method_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rsst.driver.sweep.METHOD_VERSION", 1)
    former("old", TINY, USED)
    with pytest.raises(ConfigError, match="left out: 10 trained by another method"):
        warm("old", TINY, USED)


def test_images_that_cannot_be_looked_at_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: RSSTConfig) -> None:
        raise ConfigError("data", "x", "there")

    sweep = former("old", TINY, USED, "trials=3")
    sweep.ledger = Ledger(home.home() / "old" / "ledger.jsonl")
    start = {"round": 0, "epoch": 0, "data_digest": "unknown"}
    sweep.ledger.append("reported", trial="t0000", seq=999, kind="start", metrics=start)
    monkeypatch.setattr("tune_rsst.planning.warm_start.load_images", gone)
    _, found = warm("old", TINY, USED)
    assert [reason for reason, _ in found.left_out] == ["with other images, or images that are not on this machine"]


def test_a_configuration_of_a_former_trial_is_answered_not_trained(tmp_path: Path) -> None:
    space = Space("few", few)
    former("old", space, USED)
    settings = settings_of(space, "warm_start=old", "trials=3", USED)
    sweep = begin(tmp_path / "new", space, settings, gather(settings, space, SweepWeights()))
    sweep.run()
    assert not sweep.trained and sweep.driver.exhausted and sweep.view.repeats[0]["of"].startswith("old/")
    study = sweep.searcher.study
    assert study.trials[-1].state == TrialState.COMPLETE and study.trials[-1].value in {
        t.value for t in study.trials[:4]
    }


def test_other_images_are_left_out() -> None:
    sweep = former("old", TINY, USED, "trials=3")
    sweep.ledger = Ledger(home.home() / "old" / "ledger.jsonl")
    trial = next(iter(sweep.view.trials.values()))
    sweep.ledger.append(
        "reported", trial=trial.trial, seq=999, kind="start", metrics={"round": 0, "epoch": 0, "data_digest": "other"}
    )
    _, found = warm("old", TINY, USED)
    assert (
        dict(found.left_out) == {"with other images, or images that are not on this machine": 1}
        and len(found.trials) == 2
    )


@pytest.mark.parametrize(("names", "says"), [("nosuch", "sweep = nosuch"), ("old", "left out: 10 with another epochs")])
def test_nothing_to_take_over_is_one_line(names: str, says: str) -> None:
    former("old", TINY, USED)
    with pytest.raises(ConfigError, match=says):
        warm(names, TINY, "epochs=3")


def test_former_trials_have_real_fingerprints() -> None:
    sweep = former("old", TINY, USED, "trials=2")
    for trial in sweep.view.trials.values():
        config = RSSTConfig.from_knobs(trial.knobs)
        assert trial.fingerprint == config.fingerprint and list(events(config))[-1]["kind"] == "final"


@pytest.mark.parametrize("sampler", ["random", "qmc", "nsga2", "nsga3"])
def test_a_sampler_that_would_not_look_at_them_is_refused(sampler: str) -> None:
    former("old")
    with pytest.raises(ConfigError, match=f"sampler = {sampler}: valid is tpe or gp with warm_start"):
        make_plan({"warm_start": "old", "sampler": sampler}, None, False)


def test_trials_from_the_same_weights_are_taken_wherever_the_file_lies(tmp_path: Path) -> None:
    """The former sweep's trials name its own copy, the new sweep's the file that the user gave: the digest decides."""
    torch.manual_seed(0)
    file = tmp_path / "mine.safetensors"
    arch = architecture(RSSTConfig.from_knobs({"dataset": "digits"}), in_chans=1, num_classes=10)
    save_file(dict(build(arch).state_dict()), file)
    pretrained = Space("from_weights", from_weights)
    settings = settings_of(pretrained, f"weights={file}", "trials=2", USED)
    weights = SweepWeights()
    weights.look_for(config for _, config in samples(pretrained, settings.fixed, 1))
    folder = SweepFolder(home.home() / "old")
    folder.path.mkdir(parents=True)
    weights.copy_into(folder.weights)
    sweep = FakeSweep(folder.path, pretrained, settings, weights=weights)
    sweep.run()
    taken = {t.knobs["weights"] for t in sweep.view.trials.values()}
    assert taken and str(file) not in taken
    again, fresh = settings_of(pretrained, f"weights={file}", "warm_start=old", "seed=7"), SweepWeights()
    fresh.look_for(config for _, config in samples(pretrained, again.fixed, 1))
    assert len(gather(again, pretrained, fresh).trials) == 2
