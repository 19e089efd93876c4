"""The ranking in a terminal and in a file: columns, legend, ranks, reasons; and the listings of spaces and settings."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from search_spaces import SPACES
from tests.tune_rsst.recorded import sweep_events
from tune_rsst.cli import spaces
from tune_rsst.ledger.view import SweepView
from tune_rsst.report import page
from tune_rsst.results import query, ranking, table
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking import notes

ALWAYS = ("trial", "state", "val_top1", "test_top1", "kept", "density")
EVERYTHING = ("#", "params", "gmacs", "gap", "dense", "drop", "epochs", "init_effective", "lr", "rate", "g", *ALWAYS)
WIDTHS = (70, 80, 100, 120, 160)


def view_of(trials: int = 8, **metrics: Any) -> SweepView:
    """A made-up sweep with a searched g; `metrics` are those of every round and end of t0001, t0005 and so on."""
    view = SweepView()
    for at, event in enumerate(sweep_events(trials=trials)):
        if event["event"] == "suggested":
            event["params"] = {**event["params"], "reg_granularity_prune": 1.23456}
        if event["event"] == "reported" and event["kind"] in ("round", "final") and int(event["trial"][1:]) % 4 == 1:
            event["metrics"] = {**event["metrics"], **metrics}
        view.apply({"time": float(at), **event})
    return view


def printed(view: SweepView, width: int, terminal: bool = True) -> list[str]:
    """The lines of print_table down to the best trial."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    table.print_table(console, Sweep(SweepFolder(Path("/nowhere/demo")), view, "finished"))
    return out.getvalue().split("\nBest:")[0].strip().splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_terminal_gets_the_columns_that_fit_and_one_line_a_trial(width: int) -> None:
    _, _, head, *rows = printed(view_of(), width)
    assert [re.findall(r"t\d{4}", row) for row in rows[:8]] == [[t.trial] for t in ranking.rank(view_of())]
    assert max(map(cell_len, [head, *rows[:8]])) <= width and not any("…" in row for row in rows)
    assert set(ALWAYS) <= set(head.split()) and (width < 160 or set(head.split()) == set(EVERYTHING))


def test_wider_terminals_have_more_columns_and_what_is_left_out_is_named() -> None:
    found = [printed(view_of(), width) for width in WIDTHS]
    heads = [set(lines[2].split()) for lines in found]
    assert all(narrow <= wide for narrow, wide in pairwise(heads)) and heads[0] < heads[-1]
    narrow = " ".join(found[0])
    for name in set(EVERYTHING) - heads[0] - {"g"}:
        assert name in narrow.split("Too narrow for")[1], name
    assert "init_effective (scratch)" in narrow and "Too narrow" not in " ".join(found[-1])


@pytest.mark.parametrize("width", [20, 80])
def test_a_file_gets_every_column_however_narrow_the_terminal_would_be(width: int) -> None:
    lines = printed(view_of(), width, terminal=False)
    assert set(lines[2].split()) == set(EVERYTHING)
    assert [line.split()[:1] for line in lines[3:5]] == [["1"], ["2"]] and len(lines) == 2 + 1 + 8 + 1 + 1
    assert "0.001" in lines[3] and "scratch" in lines[3] and "1.23" in lines[3]


def test_one_line_says_what_the_columns_mean_and_their_units() -> None:
    wide, narrow = (" ".join(" ".join(printed(view_of(), width)).split()) for width in (160, 70))
    for words in ("kept = share of units", "density = share of prunable parameters"):
        assert words in wide and words in narrow
    for words in (
        "gap = accuracy lost by hardening (share)",
        "gmacs = 1e9 MACs of an image",
        "g = reg_granularity_prune",
    ):
        assert words in wide
    assert "g = reg_granularity_prune" not in narrow  # a column that is not there needs no word


BALANCED = {"val_balanced", "test_balanced"}
RATIOS = [(1.0, False), (1.49, False), (1.5, True), (40.0, True)]


@pytest.mark.parametrize(("ratio", "shown"), RATIOS)
def test_balanced_accuracy_is_shown_where_the_classes_of_a_trial_are_uneven(ratio: float, shown: bool) -> None:
    view = view_of()
    view.trials["t0004"].origin["class_ratio"] = ratio
    lines = printed(view, 80, terminal=False)
    assert set(lines[2].split()) == {*EVERYTHING, *(BALANCED if shown else ())}
    assert ("val_balanced, test_balanced = mean accuracy of the classes (share)" in " ".join(lines)) is shown
    heads = "".join(page._table(view)).partition("</thead>")[0]
    assert ("balanced test accuracy (share)" in heads) is shown and "drop against dense (share)" in heads
    trials = list(view.trials.values())
    assert ("val_balanced_accuracy" in " ".join(notes._table(trials, "val_top1", ranked=True))) is shown
    printed_csv = io.StringIO()
    with contextlib.redirect_stdout(printed_csv):
        query.print_csv(view, lambda trial: True)
    [first, *_] = csv.DictReader(io.StringIO(printed_csv.getvalue()))
    assert float(first["test_balanced_accuracy"]) > 0 and float(first["dense_top1"]) > 0, "always in the CSV"


NEW = ("class_ratio", "dense_top1", "top1_drop", "val_balanced_accuracy", "val_class_accuracy")
NEW += ("test_balanced_accuracy", "test_class_accuracy")


def test_a_ledger_of_an_earlier_version_is_shown_with_blanks() -> None:
    view = SweepView()
    for at, event in enumerate(sweep_events()):
        if event["event"] == "reported":
            event["metrics"] = {name: value for name, value in event["metrics"].items() if name not in NEW}
        view.apply({"time": float(at), **event})
    lines = printed(view, 250)
    dense = slice(lines[2].index("dense") - 2, lines[2].index("drop") + len("drop"))
    assert lines[3].startswith("1  t0001") or lines[3].startswith("1  t0000")
    assert not lines[3][dense].strip() and "Best:" not in lines[3]
    noted = notes._table(list(view.trials.values()), "val_top1", ranked=True)
    assert "None" not in "".join([*lines, *page._table(view), *noted])


def test_a_searched_knob_and_a_metric_of_one_name_have_a_column_each() -> None:
    view = view_of()
    for trial in view.trials.values():
        trial.params["epochs"] = 77
    _, _, head, first, *_ = printed(view, 80, terminal=False)
    cells = dict(zip(head.split(), first.split(), strict=True))
    assert (cells["epochs"], cells["knob.epochs"]) == ("6", "77")


def test_equal_reasons_are_told_once() -> None:
    view = view_of(trials=16)
    failed = [trial for trial in view.trials.values() if trial.state == "failed"]
    assert [line for line in printed(view, 160) if "failed:" in line] == ["4 trials failed: loss is not finite"]
    failed[1].reason = "no space left"
    assert [line for line in printed(view, 160) if "failed:" in line] == [
        "3 trials failed: loss is not finite",
        f"{failed[1].trial} failed: no space left",
    ]
    assert "3 trials failed: loss is not finite" in "".join(page._table(view))
    assert "".join(page._table(view)).count("loss is not finite") == 1


@pytest.mark.parametrize("over", [{"kept_share_asked": 0.5}, {}])
def test_table_csv_and_report_number_the_same_trials(
    over: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    view = view_of(**over)
    query.print_csv(view, lambda trial: True)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    in_csv = {row["trial"]: row["rank"] for row in rows}
    lines = printed(view, 80, terminal=False)[3:11]
    in_table = {re.findall(r"t\d{4}", line)[0]: re.match(r"\d*", line)[0] for line in lines}  # type: ignore[index]
    cells = re.findall(r"<tr[^>]*><td>(\d*)</td><td>(t\d{4})</td>", "".join(page._table(view)))
    assert in_csv == in_table == {trial: rank for rank, trial in cells}
    over_the_limit = {"t0001", "t0005"} if over else set()
    allowed = {t.trial for t in view.trials.values() if t.state == "finished"} - over_the_limit
    assert {trial for trial, rank in in_csv.items() if rank} == allowed
    assert sorted(rank for rank in in_csv.values() if rank) == [str(n + 1) for n in range(len(allowed))]


def test_a_trial_that_no_worker_has_yet_waits() -> None:
    view = SweepView.of({**event, "time": 0.0} for event in [*sweep_events()][:3])
    lines = printed(view, 80)
    assert "2 waiting" in lines[0] and all(" waiting " in line for line in lines[3:5])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_space_is_shown_in_lines_that_fit(name: str, width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    spaces.print_space(console, name, 3, {})
    head, *lines = out.getvalue().split("drawn at random\n")[1].splitlines()
    assert max(map(cell_len, [head, *lines])) <= width and "…" not in " ".join([head, *lines[:3]])
    assert "reg_granularity_prune" not in head and len(head.split()) >= 4
    assert all(len(line.split()) >= 3 for line in lines[:3])


def test_a_file_gets_every_column_of_a_space() -> None:
    out = io.StringIO()
    spaces.print_space(Console(file=out, width=40), "digits", 3, {})
    head, *lines = out.getvalue().split("drawn at random\n")[1].splitlines()
    own = ["lr", "n", "g", "warmup", "rounds", "epochs", "params", "gmacs", "arch", "dataset"]
    assert head.split() == own and len(lines) == 4 and all(len(line.split()) == len(own) for line in lines[:3])
    assert "gmacs = 1e9 MACs of an image" in lines[3] and "g = reg_granularity_prune" in lines[3]


def test_defaults_that_are_none_are_none_and_those_that_depend_say_so() -> None:
    text = "\n".join(spaces.setting_lines())
    for name, kind in (("weights", "str"), ("weights_digest", "str"), ("data", "str"), ("micro_batch_size", "int")):
        assert f"  {name}: {kind}, default none\n" in text
    assert "  target_density: float, default none (in a sweep 0.3)\n" in text
    assert "  lr: float, default what arch and dataset ask for\n" in text
    assert "  warm_start: list of names, default none\n" in text
    assert "  rungs: list of numbers, default [0.3,0.6]\n" in text


def test_the_knobs_heading_says_what_the_default_space_fixes() -> None:
    heading = "\n".join(spaces.setting_lines()).split("\nKnobs of a trial")[1].split("\n  arch:")[0]
    assert "the default space, digits, fixes dataset=digits" in heading
    assert "reg_granularity_prune" in heading and "lr" in heading


def test_the_front_over_the_rounds_stands_below_where_models_of_rounds_were_kept() -> None:
    def below(view: SweepView) -> list[str]:
        out = io.StringIO()
        table.print_table(Console(file=out, width=200), Sweep(SweepFolder(Path("/nowhere/demo")), view, "finished"))
        return [line for line in out.getvalue().splitlines() if line.startswith("Front over all rounds")]

    view = view_of()
    assert below(view) == [], "a sweep of an older version kept none"
    for trial in view.trials.values():
        trial.knobs["keep_rounds"] = 20
    [line] = below(view)
    names = re.findall(r"t\d{4}-r\d{3}", line)
    assert names == [one.name for one in ranking.rounds_front(view)][: table.MOST_ROUNDS] and "--round N" in line
