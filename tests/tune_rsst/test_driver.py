"""The driver's state is a function of the ledger: kills, repeats, failures and stops, with formulas as trials."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.tune_rsst.fake_sweep import FakeSweep, few, settings_of, tiny
from trainables.rsst.config import ConfigError
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.view import SweepView
from tune_rsst.search.spaces import Space
from tune_rsst.search.study import StudySearcher
from tune_rsst.search.study_database import check as check_storage

SAMPLERS = {"nsga2": "NSGAIISampler", "nsga3": "NSGAIIISampler"}
TINY, FEW = Space("tiny", tiny), Space("few", few)


def sweep(folder: Path, space: Space = TINY, *overrides: str, storage: str = "memory") -> FakeSweep:
    return FakeSweep(folder, space, settings_of(space, "trials=10", *overrides), storage)


def states(found: FakeSweep) -> list[str]:
    return [t.state.name for t in found.searcher.study.trials]


def test_every_trial_ends_and_the_study_says_the_same(tmp_path: Path) -> None:
    done = sweep(tmp_path)
    done.run()
    named = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
    assert done.driver.complete and len(done.view.trials) == 10
    assert states(done) == [named[t.state] for t in done.view.trials.values()]
    assert {t.state for t in done.view.trials.values()} == {"finished", "stopped"}
    for trial in done.view.trials.values():
        frozen = done.searcher.study.trials[trial.number]
        assert frozen.params == trial.params
        if trial.state == "finished":
            assert frozen.value == trial.final["val_top1"]
        else:
            assert frozen.value == list(frozen.intermediate_values.values())[-1]
            assert trial.rung == max(frozen.intermediate_values)


def told(found: FakeSweep) -> dict[int, dict[str, Any]]:
    """What the study says of each of its trials by attributes."""
    return {trial.number: trial.user_attrs for trial in found.searcher.study.trials}


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ((), ["val_top1"]),
        (("objective=val_loss",), ["val_loss"]),
        (("objective=min:val_top5",), ["val_top5"]),
        (("objective=constrained", "max_params=80000"), ["val_top1"]),
        (("objective=pareto", "pareto_against=gmacs"), ["val_top1", "gmacs"]),
    ],
)
def test_the_study_names_its_values_and_whose_they_are_also_when_it_is_made_anew(
    objective: tuple[str, ...], names: list[str], tmp_path: Path
) -> None:
    """For optuna-dashboard and `Study.trials_dataframe`: what #3 is."""
    run = sweep(tmp_path, TINY, *objective)
    run.run()
    assert run.searcher.study.metric_names == names
    sizes = {
        t.number: {name: t.metrics[name] for name in ("kept_share", "params", "gmacs")}
        for t in run.view.trials.values()
    }
    assert (
        told(run) == {number: {"trial": f"t{number:04d}", **size} for number, size in sizes.items()}
        and len(sizes) == 10
    )
    anew = sweep(tmp_path, TINY, *objective)
    assert anew.searcher.study.metric_names == names and told(anew) == told(run)


def test_a_repeat_and_a_running_trial_say_which_they_are(tmp_path: Path) -> None:
    run = sweep(tmp_path, FEW, "stopping=none")
    run.run(reports=3)
    assert told(run)[0] == {"trial": "t0000"}, "its first round is to come"
    run.run()
    repeats = {number: trial for trial, numbers in run.view.repeats_of.items() for number in numbers}
    assert repeats and all(told(run)[number]["trial"] == trial for number, trial in repeats.items())


def runs_of(found: FakeSweep) -> dict[str, str]:
    """Trial → its run in MLflow, as the study says it: the trial itself, or the study."""
    own = {attributes["trial"]: attributes.get("mlflow_run_id") for attributes in told(found).values()}
    late = found.searcher.study.user_attrs.get("mlflow_run_ids", {})
    assert not {trial for trial, run in own.items() if run} & late.keys(), "said once"
    return {trial: run for trial, run in (own | late).items() if run}


@pytest.mark.parametrize("storage", [False, True], ids=["memory", "sqlite"])
def test_the_study_says_which_run_of_mlflow_each_trial_has_also_when_it_was_made_late(
    storage: bool, tmp_path: Path
) -> None:
    """The uploader makes runs seconds after a trial began; nobody may add to a trial of Optuna's that has ended."""
    url = f"sqlite:///{tmp_path / 'optuna.db'}" if storage else "memory"
    run, there = sweep(tmp_path, storage=url), dict[str, str]()
    run.searcher.mlflow_runs = lambda: there
    run.run(reports=20)
    ended = {t.trial for t in run.view.trials.values() if not t.unfinished}
    assert ended and not any("mlflow_run_id" in attributes for attributes in told(run).values())
    there |= {"": "parent"} | {f"t{n:04d}": f"run{n}" for n in range(10)}
    run.run(reports=1)
    assert runs_of(run), "a trial that runs says its run with the next report"
    run.run()
    late = ended | {t.trial for t in run.view.trials.values() if t.trial not in runs_of(run)}
    run.searcher.name_runs()
    expected = {f"t{n:04d}": f"run{n}" for n in range(10)}
    assert runs_of(run) == expected and run.searcher.study.user_attrs["mlflow_run_id"] == "parent"
    assert run.searcher.study.user_attrs["mlflow_run_ids"].keys() == late < expected.keys()
    again = sweep(tmp_path, storage=url)
    assert not storage or (runs_of(again) == expected and not again.searcher.rebuilt)


def test_a_study_that_is_made_anew_keeps_the_runs_that_the_old_one_named(tmp_path: Path) -> None:
    """And they decide nothing: a sweep whose runs nobody tells of suggests the same, and has the same ledger."""
    ledgers, expected = [], {f"t{n:04d}": f"run{n}" for n in range(10)}
    for name, runs in (("told", expected), ("untold", {})):
        folder = tmp_path / name
        folder.mkdir()
        url = f"sqlite:///{folder / 'optuna.db'}" if runs else "memory"
        run = sweep(folder, storage=url)
        for reports in (30, None):
            run.searcher.mlflow_runs = runs.copy
            run.run(reports=reports)
            run.searcher.name_runs()
            run.searcher.ask({})  # a suggestion that the ledger never hears of
            run.ledger.close()
            run = sweep(folder, storage=url)
        ledgers.append((folder / "ledger.jsonl").read_bytes().replace(str(folder).encode(), b""))
        assert not runs or (run.searcher.rebuilt and runs_of(run) == expected)
    assert ledgers[0] == ledgers[1]


def test_stopping_none_finishes_every_trial(tmp_path: Path) -> None:
    done = sweep(tmp_path, TINY, "stopping=none")
    done.run()
    assert done.view.count("finished") == 10


def test_a_stopped_trial_has_not_had_its_last_round(tmp_path: Path) -> None:
    done = sweep(tmp_path, TINY, "trials=20")
    done.run(at_once=3)
    stopped = [t for t in done.view.trials.values() if t.state == "stopped"]
    assert stopped and all(len(t.round_events) < t.rounds for t in stopped)


@pytest.mark.medium
@pytest.mark.parametrize("storage", [False, True], ids=["memory", "sqlite"])
def test_kills_lose_no_trial_double_none_and_train_no_round_twice(tmp_path: Path, storage: bool) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}" if storage else "memory"
    trained: list[tuple[str, int]] = []
    randomly = random.Random(7)
    for _ in range(200):
        run = sweep(tmp_path, storage=url)
        run.run(reports=randomly.randint(1, 25))
        trained += run.trained
        if run.driver.complete:
            break
    else:
        pytest.fail("the sweep made no progress")
    view = SweepView.of(read(tmp_path / "ledger.jsonl"))
    assert list(view.trials) == [f"t{n:04d}" for n in range(10)] and not view.unfinished
    assert len(trained) == len(set(trained)) == sum(len(t.round_events) for t in view.trials.values())
    assert len(run.searcher.study.trials) == 10


def test_after_a_kill_the_rungs_and_the_study_equal_those_before(tmp_path: Path) -> None:
    before = sweep(tmp_path)
    before.run(reports=60)
    after = sweep(tmp_path)
    assert after.driver.halving.values == before.driver.halving.values
    assert after.driver.rungs == before.driver.rungs
    for old, new in zip(before.searcher.study.trials, after.searcher.study.trials, strict=True):
        assert (old.state, old.params, old.intermediate_values) == (new.state, new.params, new.intermediate_values)


def test_unfinished_suggestions_are_given_out_again_with_their_parameters(tmp_path: Path) -> None:
    before = sweep(tmp_path)
    before.run(reports=3)
    again = sweep(tmp_path)
    for old in before.view.unfinished:
        new = again.driver.next_trial()
        assert (new.trial, new.params, new.fingerprint) == (old.trial, old.params, old.fingerprint)


def test_the_next_suggestion_is_the_same_with_and_without_a_restart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    straight = sweep(tmp_path / "a", TINY, "sampler=random")
    straight.run()
    sweep(tmp_path / "b", TINY, "sampler=random").run(reports=30)
    resumed = sweep(tmp_path / "b", TINY, "sampler=random")
    resumed.run()
    assert [t.params for t in straight.view.trials.values()] == [t.params for t in resumed.view.trials.values()]


@pytest.mark.parametrize("cut", ["ended", "reported"])
def test_a_crash_between_a_report_and_its_consequence_is_made_good(tmp_path: Path, cut: str) -> None:
    """The ledger is cut right before the first `ended` of each kind of end: the restart writes the same line."""
    whole = sweep(tmp_path)
    whole.run()
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    for state in ("finished", "stopped"):
        end = next(i for i, line in enumerate(lines) if f'"state":"{state}"'.encode() in line)
        folder = tmp_path / f"{state}-{cut}"
        folder.mkdir()
        (folder / "ledger.jsonl").write_bytes(b"".join(lines[: end if cut == "ended" else end - 1]))
        again = sweep(folder)
        if cut == "reported":
            again.run()
        trial = Ledger(tmp_path / "ledger.jsonl").events[end]
        assert again.view.trials[trial["trial"]].state == state


def test_a_report_that_comes_twice_counts_once(tmp_path: Path) -> None:
    run = sweep(tmp_path)
    run.run(reports=12)
    size = len(read(tmp_path / "ledger.jsonl"))
    trial = run.view.unfinished[0]
    metrics = trial.last_epoch
    assert run.driver.take({"trial_key": trial.trial, "events": [{"kind": "epoch", **metrics}], "done": False}) is False
    assert len(read(tmp_path / "ledger.jsonl")) == size


def test_repeated_configurations_are_answered_and_an_exhausted_space_ends_the_sweep(tmp_path: Path) -> None:
    run = sweep(tmp_path, FEW, "stopping=none", "trials=9", "sampler=random")
    run.run()
    assert run.driver.complete and run.driver.exhausted
    assert len(run.view.trials) == 4, "the space has four members, each trained once"
    assert len({t.fingerprint for t in run.view.trials.values()}) == 4
    assert run.view.repeats
    for repeat in run.view.repeats:
        answered, first = run.searcher.study.trials[repeat["number"]], run.view.trials[repeat["of"]]
        assert (answered.state, answered.value) == (TrialState.COMPLETE, first.final["val_top1"])
    again = sweep(tmp_path, FEW, "stopping=none", "trials=9", "sampler=random")
    assert states(again) == states(run) and not again.searcher.rebuilt


def test_a_repeat_of_a_running_trial_gets_its_value_when_it_ends(tmp_path: Path) -> None:
    run = sweep(tmp_path, FEW, "stopping=none", "trials=4", "sampler=random", "startup_trials=1")
    run.run(at_once=4)
    assert "RUNNING" not in states(run)


def break_second(trial: Any, event: dict[str, Any]) -> dict[str, Any]:
    if trial.trial == "t0001" and event["kind"] == "round":
        return {**event, "val_top1": float("nan")}
    return event


def test_not_a_number_ends_the_trial_as_failed_and_the_sweep_goes_on(tmp_path: Path) -> None:
    run = sweep(tmp_path)
    run.run(alter=break_second)
    bad = run.view.trials["t0001"]
    assert bad.state == "failed" and "val_top1 = nan" in bad.reason
    assert states(run)[1] == "FAIL" and "RUNNING" not in states(run) and run.driver.complete


def test_a_trial_that_says_it_failed_is_told_fail_with_its_reason(tmp_path: Path) -> None:
    run = sweep(tmp_path)
    trial = run.driver.next_trial()
    line = "loss = inf in round 1, epoch 2, step 3"
    assert run.driver.take({"trial_key": trial.trial, "events": [], "failed": line, "done": True}) is True
    assert run.view.trials[trial.trial].reason == line and states(run) == ["FAIL"]


def test_a_worker_that_is_given_up_leaves_its_last_error_as_the_reason(tmp_path: Path) -> None:
    run = sweep(tmp_path)
    trial = run.driver.next_trial()
    run.driver.worker_error(trial.trial, "ActorDiedError: node lost")
    run.driver.given_up(trial.trial)
    assert run.view.trials[trial.trial].reason == "ActorDiedError: node lost"


def test_a_study_that_disagrees_is_rebuilt_from_the_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    run = sweep(tmp_path, storage=url)
    run.run(reports=40)
    run.searcher.study.ask()  # a suggestion that a crash kept out of the ledger
    again = sweep(tmp_path, storage=url)
    assert again.searcher.rebuilt and len(again.searcher.study.trials) == len(again.view.trials)
    again.run()
    assert again.driver.complete and states(again).count("RUNNING") == 0


def half_broken(trial: Any) -> dict[str, Any]:
    """Valid only where warmup ≤ epochs."""
    return {**tiny(trial), "epochs": 2, "warmup": trial.suggest_int("warmup", 0, 4)}


def test_a_configuration_that_is_not_valid_is_told_fail_and_another_is_asked(tmp_path: Path) -> None:
    space = Space("half_broken", half_broken)
    run = FakeSweep(tmp_path, space, settings_of(Space("tiny", tiny), "trials=6", "sampler=random"))
    run.run()
    assert run.driver.complete and len(run.view.trials) == 6
    assert run.view.repeats and all("warmup" in r["reason"] for r in run.view.repeats)
    assert states(run).count("FAIL") == len(run.view.repeats)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "nsga3", "random", "qmc"])
def test_every_sampler_runs_a_sweep_over_a_restart(tmp_path: Path, sampler: str) -> None:
    options = (f"sampler={sampler}", "startup_trials=3", "trials=8")
    sweep(tmp_path, TINY, *options).run(reports=40)
    resumed = sweep(tmp_path, TINY, *options)
    resumed.run()
    assert resumed.driver.complete and len({t.fingerprint for t in resumed.view.trials.values()}) == 8


def test_samplers_differ(tmp_path: Path) -> None:
    found = set()
    for sampler in ("tpe", "gp", "random", "qmc"):
        (tmp_path / sampler).mkdir()
        run = sweep(tmp_path / sampler, TINY, f"sampler={sampler}", "startup_trials=2", "trials=6", "stopping=none")
        run.run()
        found.add(tuple(t.params["lr"] for t in run.view.trials.values()))
    assert len(found) == 4


def test_another_seed_asks_for_other_trials(tmp_path: Path) -> None:
    first = StudySearcher(settings_of(TINY, "seed=1"), TINY).ask({})
    second = StudySearcher(settings_of(TINY, "seed=2"), TINY).ask({})
    assert first.params != second.params


def test_a_study_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("no database at all, long enough to be looked at" * 50)
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    with pytest.raises(ConfigError, match="optuna_storage = "):
        StudySearcher(settings_of(TINY, "seed=1"), TINY, storage=url)
    searcher = StudySearcher(settings_of(TINY, "seed=1"), TINY, storage=url, own_file=True)
    assert searcher.ask({}).number == 0
    assert len(list(tmp_path.glob("optuna.db.damaged-*"))) == 1


def test_a_study_file_that_somebody_locks_stays_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    StudySearcher(settings_of(TINY), TINY, storage=f"sqlite:///{file}", own_file=True).ask({})
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(ConfigError, match="locked"):
            StudySearcher(settings_of(TINY), TINY, storage=f"sqlite:///{file}?timeout=0.1", own_file=True)
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.db"]


def test_the_study_of_another_sweep_in_the_same_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    check_storage(url, "fake")  # there is no such file yet, and none is made
    assert not (tmp_path / "shared.db").exists()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = FakeSweep(tmp_path / "a", TINY, settings_of(TINY, "trials=6"), url)
    first.run(reports=20)
    before = [t.params for t in first.searcher.study.trials]
    with pytest.raises(ConfigError, match="study fake of another sweep"):
        FakeSweep(tmp_path / "b", TINY, settings_of(TINY, "trials=5"), url)
    with pytest.raises(ConfigError, match="study fake of another sweep"):
        check_storage(url, "fake")
    check_storage(url, "other")
    assert before and [t.params for t in first.searcher.study.trials] == before


def test_a_study_that_another_program_changes_breaks_the_sweep_off_and_leaves_the_ledger_whole(tmp_path: Path) -> None:
    run = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=6"))
    run.run(reports=5)
    asked = len(run.view.trials)
    run.searcher.study.ask()
    with pytest.raises(RuntimeError, match="changed by another program"):
        run.driver.next_trial()
    assert len(run.view.trials) == asked


@pytest.mark.parametrize("sampler", ["qmc", "nsga2", "nsga3"])
def test_a_study_that_is_made_anew_goes_on_where_the_sampler_was(tmp_path: Path, sampler: str) -> None:
    """In memory, as on a network file system: the next suggestion is the one that no restart would have given."""
    settings = settings_of(TINY, f"sampler={sampler}", "trials=130", "stopping=none")
    asked: dict[str, list[dict[str, Any]]] = {}
    for name, kills in (("whole", [None]), ("killed", [900, None])):
        (tmp_path / name).mkdir()
        for reports in kills:
            run = FakeSweep(tmp_path / name, TINY, settings)
            run.run(at_once=1, reports=reports)
            run.ledger.close()
        asked[name] = [trial.params for trial in run.view.trials.values()]
        assert len(asked[name]) == 130 and not run.driver.exhausted
    if sampler == "qmc":
        assert asked["killed"] == asked["whole"]
    else:
        generations = [t.system_attrs[f"{SAMPLERS[sampler]}:generation"] for t in run.searcher.study.trials]
        assert max(generations) >= 2 and generations == sorted(generations)


def test_a_study_address_that_leads_nowhere_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="optuna_storage = "):
        StudySearcher(settings_of(TINY, "seed=1"), TINY, storage="postgresql://u:secret@127.0.0.1:1/x")


def test_a_retry_after_memory_ran_out_is_in_the_ledger_and_survives_a_resume(tmp_path: Path) -> None:
    first = sweep(tmp_path)
    trial = first.driver.next_trial()
    assert trial is not None
    smaller = {"micro_batch_size": 8, "reason": "CUDA out of memory"}
    first.driver.take({"trial_key": trial.trial, "events": [], "done": False, "retried": [smaller]})
    first.driver.take({"trial_key": trial.trial, "events": [], "waiting": "in use"})
    first.driver.take({"trial_key": trial.trial, "events": [], "waiting": "in use"})
    first.ledger.close()
    written = read(tmp_path / "ledger.jsonl")
    assert [e["event"] for e in written].count("worker_error") == 1, "waiting is said once"
    assert [(e["trial"], e["micro_batch_size"]) for e in written if e["event"] == "retried"] == [(trial.trial, 8)]
    again = sweep(tmp_path)
    resumed = again.driver.next_trial()
    assert resumed is not None and again.driver.knobs_of(resumed)["micro_batch_size"] == 8
    assert resumed.metrics["micro_batch_size"] == 8


@pytest.mark.parametrize(
    "harm",
    [
        "update studies set study_name = study_name || 'x'",
        "update trials set state = 'FAIL'",
        "update trial_params set distribution_json = '{}'",
        "update trial_params set distribution_json = replace(distribution_json, '0.01', '0.02')",
        "update trial_params set param_value = 0.005",
        "update study_directions set direction = 'MINIMIZE'",
        "delete from trial_values",
        "drop table trial_values",
        "delete from alembic_version",
    ],
)
def test_a_study_of_the_sweeps_own_that_was_changed_is_made_anew_from_the_ledger(tmp_path: Path, harm: str) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    before = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=6"), url)
    before.run(reports=40)
    right = [(t.state, t.params, t.distributions, t.values) for t in before.searcher.study.trials]
    before.ledger.close()
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as other, other:
        other.execute(harm)
    after = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=6"), url)
    assert [(t.state, t.params, t.distributions, t.values) for t in after.searcher.study.trials] == right
    assert [one.name for one in after.searcher.study.directions] == ["MAXIMIZE"]
    after.run()
    assert after.driver.complete
