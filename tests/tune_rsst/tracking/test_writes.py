"""What each ledger line means in MLflow, checked without MLflow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tune_rsst.recorded import sweep_events
from trainables.rsst.metrics import kept_per
from tune_rsst.ledger.view import SweepView
from tune_rsst.results.commands import rerun_command, resume
from tune_rsst.results.ranking import pareto_front, ranking
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.notes import NOTE_LENGTH, run_name, short_number, sweep_note
from tune_rsst.tracking.write import profile_of
from tune_rsst.tracking.writes import PARENT, RunWrites, Write, text

FOLDER = SweepFolder(Path("/a home/demo"))


def timed(events: list[dict]) -> list[dict]:
    return [{**event, "time": 1000.0 + second} for second, event in enumerate(events)]


def planned(events: list[dict], chunk: int) -> dict[str, Write]:
    """All writes by run, applied and taken `chunk` events at a time."""
    plan, merged = RunWrites("abc", FOLDER), {}
    for begin in range(0, len(events), chunk):
        for event in events[begin : begin + chunk]:
            plan.apply(event)
        for write in plan.take():
            into = merged.setdefault(write.run, Write(write.run))
            into.points += write.points
            into.params |= write.params
            into.tags |= write.tags
            into.status = write.status or into.status
    return merged


EVENTS = timed(list(sweep_events()))


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_the_result_does_not_depend_on_how_the_ledger_is_cut(chunk: int) -> None:
    whole, cut = planned(EVENTS, len(EVENTS)), planned(EVENTS, chunk)
    assert whole.keys() == cut.keys()
    for run in whole:
        assert sorted(cut[run].points) == sorted(whole[run].points)
        assert (cut[run].params, cut[run].tags, cut[run].status) == (
            whole[run].params,
            whole[run].tags,
            whole[run].status,
        )


def test_statuses_are_those_of_the_trials() -> None:
    writes = planned(EVENTS, 5)
    assert {run: write.status for run, write in writes.items()} == {
        PARENT: "FINISHED",
        "t0000": "FINISHED",
        "t0001": "FINISHED",
        "t0002": "KILLED",
        "t0003": "FAILED",
    }


LEFT, RESUMED = {"event": "interrupted"}, {"event": "resumed"}
GAVE_UP = {"event": "interrupted", "reason": "RayError: gone"}
NEW = {**next(e for e in EVENTS if e.get("trial") == "t0001" and e["event"] == "suggested")}
REPORT = next(e for e in EVENTS if e.get("trial") == "t0000" and e.get("kind") == "epoch")


def end(trial: str, state: str) -> dict:
    return {"event": "ended", "trial": trial, "state": state, "reason": None, "rung": None}


FAILS, AGAIN = end("t0000", "failed"), {"event": "reopened", "trial": "t0000"}
# what follows after t0000 was suggested (at 1.0 s): (status, state, end in s) of the sweep and of its trials
HAPPENED: dict[str, tuple[list[dict], dict[str, tuple[str, str, float | None]]]] = {
    "it runs": ([], {PARENT: ("RUNNING", "running", None), "t0000": ("RUNNING", "running", None)}),
    "Ctrl-C": ([LEFT], {PARENT: ("KILLED", "interrupted", 2), "t0000": ("KILLED", "interrupted", 2)}),
    "SIGTERM, then Ray fails": ([LEFT, GAVE_UP], {PARENT: ("KILLED", "interrupted", 2),
                                                  "t0000": ("KILLED", "interrupted", 2)}),
    "SIGTERM, then a report": ([LEFT, REPORT], {PARENT: ("KILLED", "interrupted", 2),
                                                "t0000": ("KILLED", "interrupted", 2)}),
    "SIGTERM, then an end": ([LEFT, end("t0000", "finished")], {PARENT: ("KILLED", "interrupted", 2),
                                                                "t0000": ("FINISHED", "finished", 3)}),
    "SIGTERM, then a new trial": ([LEFT, NEW], {"t0000": ("KILLED", "interrupted", 2),
                                                "t0001": ("KILLED", "interrupted", 3)}),
    "SIGTERM, then all ends": ([LEFT, end("t0000", "finished"), {"event": "sweep_ended"}],
                               {PARENT: ("FINISHED", "finished", 4), "t0000": ("FINISHED", "finished", 3)}),
    "a resume": ([LEFT, RESUMED], {PARENT: ("RUNNING", "running", None), "t0000": ("RUNNING", "running", None)}),
    "a resume and Ctrl-C": ([LEFT, RESUMED, LEFT], {PARENT: ("KILLED", "interrupted", 4),
                                                    "t0000": ("KILLED", "interrupted", 4)}),
    "a resume after kill -9": ([RESUMED, NEW], {"t0000": ("RUNNING", "running", None),
                                                "t0001": ("RUNNING", "running", None)}),
    "stopped, then Ctrl-C": ([end("t0000", "stopped"), LEFT], {PARENT: ("KILLED", "interrupted", 3),
                                                               "t0000": ("KILLED", "stopped", 2)}),
    "failed, then Ctrl-C": ([FAILS, LEFT], {"t0000": ("FAILED", "failed", 2)}),
    "failed, then retried": ([FAILS, AGAIN, RESUMED], {"t0000": ("RUNNING", "running", None)}),
    "failed, retried, Ctrl-C": ([FAILS, AGAIN, RESUMED, LEFT], {"t0000": ("KILLED", "interrupted", 5)}),
    "finished, then extended": ([end("t0000", "finished"), {"event": "sweep_ended"},
                                 {"event": "extended", "trials": 9, "by": 5}, RESUMED],
                                {PARENT: ("RUNNING", "running", None), "t0000": ("FINISHED", "finished", 2)}),
}  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 100])
@pytest.mark.parametrize("name", HAPPENED)
def test_a_run_has_the_state_of_its_trial_and_an_end_when_nobody_drives_it(name: str, at_once: int) -> None:
    happened, expected = HAPPENED[name]
    events = [{**event, "time": float(second)} for second, event in enumerate([*EVENTS[:2], *happened])]
    found: dict[str, tuple] = {}
    plan = RunWrites("abc", FOLDER)
    for begin in range(0, len(events), at_once):
        for event in events[begin : begin + at_once]:
            plan.apply(event)
        for write in plan.take():
            if write.status:
                found[write.run] = write.status, write.tags["state"], write.end_ms and write.end_ms / 1000
    assert {run: found[run] for run in expected} == expected
    shown = {run: trial.state for run, trial in plan.view.trials.items()}
    assert shown == {run: state for run, (_, state, _) in found.items() if run != PARENT}


@pytest.mark.parametrize("lines", [2, 3, 10, len(EVENTS) - 1])
def test_a_sweep_whose_driver_was_killed_ends_with_its_last_line_however_often_that_is_found(lines: int) -> None:
    plan = RunWrites("abc", FOLDER)
    for event in EVENTS[:lines]:
        plan.apply(event)
    running = {PARENT, *(trial.trial for trial in plan.view.unfinished)}
    plan.take()
    plan.interrupted()
    last = round(EVENTS[lines - 1]["time"] * 1000)
    assert {w.run: (w.status, w.end_ms) for w in plan.take() if w.status} == dict.fromkeys(running, ("KILLED", last))
    plan.interrupted()
    assert plan.take() == []
    plan.apply({"event": "resumed", "time": 9999.0})
    assert {w.run: (w.status, w.end_ms) for w in plan.take()} == dict.fromkeys(running, ("RUNNING", None))


def test_epochs_are_curves_over_epochs_and_rounds_over_rounds() -> None:
    points = planned(EVENTS, 5)["t0000"].points
    steps = {
        name: [step for key, _, _, step in points if key == name] for name in ("train_loss", "val_top1", "density")
    }
    assert steps == {"train_loss": [1, 2, 3, 4, 5, 6], "val_top1": [0, 1, 2], "density": [0, 1, 2]}
    assert [step for key, _, _, step in points if key == "doomed_norm_left"] == [3, 4, 5, 6]


def test_the_end_adds_what_no_round_reports_and_every_other_final_value_ends_its_curve() -> None:
    """MLflow shows every name with a / before the curves: a value of the end has the name that it has everywhere."""
    writes = planned(EVENTS, 5)
    for trial, fate in (("t0000", "finished"), ("t0002", "stopped"), ("t0003", "failed")):
        rounds = [e["metrics"] for e in EVENTS if e.get("trial") == trial and e.get("kind") == "round"]
        points = writes[trial].points
        assert not [key for key, *_ in points if "/" in key]
        last = {key: (value, step) for key, value, _, step in sorted(points, key=lambda point: point[3])}
        for name in ("val_top1", "density", "params", "kept_share_asked", "epochs_trained"):
            assert last[name] == (rounds[-1][name], rounds[-1]["round"]), name
        assert len(points) == len({(key, step) for key, _, _, step in points}), "each once"
        assert ("test_top1" in last) == (fate == "finished"), "only a final model is tested"


def test_no_metric_leaves_mlflow_unnoticed() -> None:
    """Who compares sweeps finds the names of former ones; a new metric may join them."""
    curves = ["train_loss val_top1_before_hardening lr doomed_norm_left"]
    curves += ["val_top1 density kept_share round_gap hardening_gap predictions_changed heads_kept neurons_kept params"]
    final = "val_top1 test_top1 test_loss density kept_share kept_share_asked hardening_gap params gmacs latency_ms"
    assert set(curves[0].split()) <= set(kept_per("epoch"))
    assert {*curves[1].split(), "gmacs", "latency_ms", "latency_batch_ms"} <= set(kept_per("round"))
    others = {"latency_batch_ms", "heads_kept", "neurons_kept", "predictions_changed", "epochs_trained"}
    assert {*final.split(), *others} <= set(kept_per("final"))


def test_points_carry_the_ledgers_time() -> None:
    times = {round(event["time"] * 1000) for event in EVENTS}
    assert {ms for write in planned(EVENTS, 5).values() for _, _, ms, _ in write.points} <= times


def test_parameters_are_every_knob_and_where_the_weights_came_from() -> None:
    params = planned(EVENTS, 5)["t0001"].params
    assert params["pretrained"] == "false" and params["weights"] == "none" and params["epochs"] == "2"
    assert float(params["lr"]) == EVENTS[2]["params"]["lr"], "numbers are whole: the UI and a rerun read them back"
    assert params["init_effective"] == "scratch"


def test_what_is_known_at_the_start_is_a_parameter_and_no_chart() -> None:
    start = {**EVENTS[0], "event": "reported", "trial": "t0000", "seq": 0, "kind": "start"}
    start["metrics"] = {"round": 0, "epoch": 0, "class_ratio": 3.5}
    write = planned([*EVENTS[:2], {**start, "time": 1002.0}], 5)["t0000"]
    assert write.points == [] and write.params["class_ratio"] == "3.5"


def test_a_data_set_is_told_in_lines_that_mlflows_page_does_not_cut() -> None:
    """It shows a value's first hundred characters or so; of JSON in JSON, the counts of val and test were not there."""
    counts = {"images": 1259, "classes": 10, "fewest": 122, "most": 129}
    told = {
        "name": "digits",
        "white": {},
        "notes": ["val: 15%", "test: 15%"],
        "parts": {"train": counts},
        "mean": [0.3],
    }
    assert profile_of(told) == {
        "name": "digits",
        "note 1": "val: 15%",
        "note 2": "test: 15%",
        "parts: train": "images 1259, classes 10, fewest 122, most 129",
        "mean": [0.3],
    }
    assert profile_of({"parts": 3, "notes": None}) == {"parts": 3, "notes": None}, "lines of a stranger"


def test_the_sweep_says_what_its_trials_really_began_from() -> None:
    parent = planned(EVENTS, 5)[PARENT]
    assert parent.params["init_effective"] == parent.tags["init_effective"] == "scratch"
    both = [{**e, "starts": ["pretrained", "scratch"]} if e["event"] == "sweep_started" else e for e in EVENTS]
    second = [e for e in both if e["event"] == "reported" and e["kind"] == "start"][1]
    second["metrics"] = {**second["metrics"], "init_effective": "pretrained"}
    try:
        parent = planned(both, 5)[PARENT]
    finally:
        second["metrics"]["init_effective"] = "scratch"
    assert parent.params["init_effective"] == parent.tags["init_effective"] == "pretrained, scratch"


def test_samples_of_the_machine_go_on_counting_over_restarts() -> None:
    """They have a time of their own, and MLflow's prefix; a worker that starts anew does not begin at step 1 again."""
    samples = [{"time": 999.0 + n, "cpu_utilization_percentage": 10.0 * n} for n in range(3)]
    events = timed([*list(sweep_events())[:3], {"event": "system", "trial": "t0000", "samples": samples[:2]},
                    {"event": "system", "trial": "t0000", "samples": samples[2:]}])  # fmt: skip
    assert planned(events, 1)["t0000"].points[-3:] == [
        ("system/cpu_utilization_percentage", 10.0 * n, 999_000 + 1000 * n, n + 1) for n in range(3)
    ]


def test_reports_that_come_twice_count_once() -> None:
    doubled = [e for event in EVENTS for e in ([event, event] if event["event"] == "reported" else [event])]
    assert {r: w.points for r, w in planned(doubled, 5).items()} == {r: w.points for r, w in planned(EVENTS, 5).items()}


def test_rank_and_front_are_of_finished_trials_only() -> None:
    view = SweepView.of(EVENTS)
    assert {trial.trial for trial in ranking(view)} == {"t0000", "t0001"}
    assert set(pareto_front(view)) <= {"t0000", "t0001"}
    best = max((view.trials["t0000"], view.trials["t0001"]), key=lambda t: t.metrics["val_top1"])
    assert ranking(view)[0] is best and best.trial in set(pareto_front(view))
    tags = planned(EVENTS, 5)[best.trial].tags
    assert tags["rank"] == "1" and tags["pareto"] == "true"
    assert "rank" not in planned(EVENTS, 5)["t0002"].tags


def test_a_trial_above_the_target_density_has_no_rank() -> None:
    events = list(EVENTS)
    for at, event in enumerate(events):
        if event.get("trial") == "t0000" and event.get("kind") in ("round", "final"):
            events[at] = {**event, "metrics": {**event["metrics"], "kept_share_asked": 0.5, "val_top1": 0.99}}
    assert [trial.trial for trial in ranking(SweepView.of(events))] == ["t0001"]


def test_the_parents_best_only_rises() -> None:
    best = [value for key, value, _, _ in planned(EVENTS, 3)[PARENT].points if key == "best/val_top1"]
    assert best == sorted(set(best)) and best[-1] == ranking(SweepView.of(EVENTS))[0].metrics["val_top1"]


TRIED_AGAIN = [{"event": "reopened", "trial": "t0003"}, end("t0003", "failed")]


@pytest.mark.parametrize("more", [[LEFT, RESUMED], [LEFT, RESUMED] * 3, TRIED_AGAIN], ids=["one", "three", "retry"])
def test_a_step_of_the_sweeps_own_curves_is_told_once_however_many_drivers_leave(more: list[dict]) -> None:
    undisturbed, disturbed = (
        sorted((key, step, value) for key, value, _, step in planned(events, 5)[PARENT].points)
        for events in (EVENTS, timed([*EVENTS[:-1], *more, EVENTS[-1]]))
    )
    assert disturbed == undisturbed and any(key == "best/test_top1" for key, _, _ in disturbed)


def test_no_password_is_written() -> None:
    assert text("postgresql://tuner:secret@db/x") == "postgresql://tuner:***@db/x"


@pytest.mark.parametrize(
    ("value", "short"),
    [(8e-4, "8e-4"), (0.4, "0.4"), (0.00123, "1.2e-3"), (5, "5"), ("l1", "l1"), (0.0, "0"), (0.15, "0.15")],
)
def test_numbers_in_names_are_short(value: object, short: str) -> None:
    assert short_number(value) == short


def test_names_are_short_and_begin_with_the_trial() -> None:
    assert run_name("t0007", {"lr": 8e-4, "rate": 0.4, "reg_granularity_prune": 0.3}) == "t0007 lr 8e-4 rate 0.4 g 0.3"
    assert len(run_name("t0007", {f"a_long_knob_name_{n}": 0.1 for n in range(9)})) <= 60


def test_commands_can_be_pasted() -> None:
    knobs = {"arch": "vit_digits", "pretrained": True, "strict": False, "weights": None, "data": "a folder", "lr": 5e-4}
    expected = (
        f"{sys.executable} -m trainables --arch vit_digits --pretrained --strict false --data 'a folder' --lr 0.0005"
    )
    assert rerun_command(knobs) == expected
    command = resume(FOLDER, {"storage": "s3://a bucket/x"})
    assert command.startswith("TUNE_RSST_HOME='/a home' /")
    assert command.endswith("/tune-rsst sweep --name demo --resume 'storage=s3://a bucket/x'")
    assert resume(FOLDER, {}).endswith("/tune-rsst sweep --name demo --resume")


def test_notes_hold_both_commands() -> None:
    writes = planned(EVENTS, 5)
    note = writes["t0000"].tags["mlflow.note.content"]
    assert f"{sys.executable} -m trainables --dataset digits" in note and resume(FOLDER, {}) in note
    assert "| 1 | " in writes[PARENT].tags["mlflow.note.content"]


def test_the_commands_of_a_sweep_note_are_complete_however_long_the_home_is() -> None:
    view = SweepView.of(EVENTS)
    order, rows = ranking(view), []
    for length in range(100, 1800, 100):
        sweep = Sweep(SweepFolder(Path("/", *["h" * 99] * (length // 100), "demo")), view, "interrupted")
        note = sweep_note(sweep, order)
        assert len(note) <= NOTE_LENGTH and resume(sweep.folder, view.settings) in note
        rows.append(note.count("\n| "))
    assert rows == sorted(rows, reverse=True) and rows[-1] < rows[0]
