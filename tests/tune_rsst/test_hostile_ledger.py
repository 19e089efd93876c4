"""A ledger from a stranger: its texts come out of no output as anything but text, its names lead nowhere."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.chaos.toy_sweep import rewrite
from tests.tune_rsst.fake_sweep import FakeSweep, settings_of, tiny
from trainables.plain_yaml import YamlError, mapping_in
from trainables.rsst.config import KNOBS, ConfigError
from trainables.rsst.model.saved import ARCHITECTURE, MODEL, REPORT
from trainables.text import in_json
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.report.page import write_report
from tune_rsst.report.sweep_figures import save_figures
from tune_rsst.results import best, listing, query
from tune_rsst.results.as_json import as_json
from tune_rsst.results.live import LiveTable
from tune_rsst.results.table import print_fitting, print_table
from tune_rsst.search.spaces import Space
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.writes import RunWrites

HOSTILE = {
    "a script": "<script>window.hostile=1</script>",
    "the end of a script": "</script><hostile a=1>",
    "the end of a comment": "--><hostile a=1><!--",
    "an attribute": "\" onhostile='1' ' onhostile=\"1",
    "a picture": "<img src=x onhostile=1>",
    "a title of the terminal": "\x1b]0;hostile\x07",
    "a cleared screen": "\x1b[2J\x9b2J",
    "a line of its own": "x\n\nBest: t9999, val_top1 1.0",
    "an overwritten line": "x\rBest: t9999",
    "the other direction": "\u202etxet\u2066",
    "markup of rich": "[red]hostile[/red] [link=http://hostile]x[/link] :boom: [/]",
    "a formula": "=HYPERLINK(\"http://hostile\",\"x\")",
    "a formula behind a blank": " +1+cmd|' /C hostile'!A0",
    "a formula behind a tab": "\t@SUM(1)",
    "a link of Markdown": "[x](javascript:hostile) ![y](http://hostile/y.png) <http://hostile>",
    "a fence of Markdown": "x\n```\n<hostile a=1>\n````\n| a | b |",
    "a formula of matplotlib": "$\\frac{$ %",
    "a setting": "x\nweights: hostile",
    "a word for a shell": "'; hostile; $(hostile) `hostile`",
    "a zero byte": "x\0y",
}  # fmt: skip


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The ledger of a finished sweep of four trials."""
    folder = tmp_path_factory.mktemp("made")
    settings = settings_of(Space("tiny", tiny), "trials=4", "stopping=none")
    sweep = FakeSweep(folder, Space("tiny", tiny), settings, seed=0)
    sweep.run()
    sweep.driver.record("sweep_ended")
    sweep.ledger.close()
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]


def with_texts(events: list[dict[str, Any]], texts: Iterator[str]) -> list[dict[str, Any]]:
    """The same with the next of `texts` wherever a text may stand that is no name, and one more parameter."""
    found = [{k: v for k, v in event.items() if k not in ("crc", "n", "before")} for event in copy.deepcopy(events)]
    names = [event["trial"] for event in found if event["event"] == "suggested"]
    for event in found:
        if event["event"] == "sweep_started":
            event["settings"] |= {"mlflow_tracking_uri": f"http://{next(texts)}/{next(texts)}", "data": next(texts)}
            event |= {name: next(texts) for name in ("space", "git", "user", "host")}
            event["versions"] = {"torch": next(texts)}
        elif event["event"] == "suggested":
            said = next(texts)
            choice = {"name": "CategoricalDistribution", "attributes": {"choices": [said, "x"]}}
            event["params"]["note"], event["distributions"]["note"] = said, json.dumps(choice)
            event["knobs"] |= {"arch": next(texts), "weights": next(texts), "dataset": next(texts)}
        elif event["event"] == "ended":
            event["reason"] = next(texts)
            event["state"] = "failed" if event["trial"] == names[-1] else event["state"]
        elif event["event"] == "reported" and event["kind"] in ("round", "final"):
            event["metrics"] |= {"init_effective": next(texts), "val_class_accuracy": [0.1, 0.9]}
        elif event["event"] == "reported" and event["kind"] == "start":
            event["metrics"] |= {"class_ratio": 9.0, "images": {"name": next(texts), "classes": [next(texts)] * 2}}
    more: list[dict[str, Any]] = []
    asked = {"number": 90, "params": {}, "distributions": {}}
    more.append({"event": "repeated", **asked, "of": None, "reason": next(texts)})
    more.append({"event": "infeasible", **asked, "fingerprint": "f", "metrics": {"params": 3}, "reason": next(texts)})
    more.append({"event": "placed", "trial": names[0], "host": next(texts), "node": next(texts), "epochs_there": 0})
    more.append({"event": "hung", "trial": names[0], "reason": next(texts)})
    return [*found[:-1], *({"time": found[-1]["time"], **one} for one in more), found[-1]]


def sweep_of(folder: Path, events: list[dict[str, Any]]) -> Sweep:
    (folder / "fake").mkdir(parents=True)
    rewrite(folder / "fake" / "ledger.jsonl", events)
    return Sweep.of(SweepFolder(folder / "fake"))


def printed(show: Callable[[Console], object], *, terminal: bool) -> str:
    out = io.StringIO()
    show(Console(file=out, width=200, force_terminal=terminal, color_system=None, legacy_windows=False))
    return out.getvalue()


def harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text) and "Best: t9999" not in text.splitlines()


@pytest.mark.parametrize("what", HOSTILE)
def test_terminals_and_files_of_text_show_it_as_it_is(
    what: str, events: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    made = with_texts(events, cycle([HOSTILE[what]]))
    sweep = sweep_of(tmp_path, made)
    for terminal in (True, False):
        shown = printed(lambda console: print_table(console, sweep), terminal=terminal)
        assert harmless(shown) and "3 finished, 1 failed" in shown
        assert "[red]" not in HOSTILE[what] or "[red]hostile[/red] [link=http://hostile]x[/link] :boom:" in shown
        rows = printed(lambda console: print_fitting(console, listing.table(listing.listed())), terminal=terminal)
        assert harmless(rows) and "fake" in rows
    live = printed(lambda console: LiveTable(sweep.view, 4, console, sweep.folder).tick(force=True), terminal=False)
    assert harmless(live)
    said = in_json(as_json(sweep, None))
    assert said.isprintable() and json.loads(said)["trials"][0]["params"]["note"] == HOSTILE[what]
    plan = RunWrites("uid", sweep.folder)
    for event in made:
        plan.apply(event)
    for write in plan.take():
        note = write.tags.pop("mlflow.note.content")
        assert shows_nothing_else(note), note
        assert all(map(str.isprintable, [*write.tags.values(), *write.params.values(), *plan.identity(write.run)[:1]]))


def shows_nothing_else(note: str) -> bool:
    """Whether Markdown has no HTML, link, picture and no row of a table that is not ours, outside what it fences."""
    parts = re.split(r"^(`{3,})\n[^\n]*\n\1$", note, flags=re.M)[::2]
    text = "\n".join(part for part in parts)
    tags, links = re.search("<", text), re.search(r"(?<!\\)\]\(|(?<!\\)!\[", text)
    return harmless(text) and not tags and not links and "````" not in text and "| a | b |" not in text


@pytest.mark.parametrize("what", HOSTILE)
def test_no_cell_of_the_csv_is_a_formula(
    what: str, events: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query.print_csv(sweep_of(tmp_path, with_texts(events, cycle([HOSTILE[what]]))).view, lambda trial: True)
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 5 and len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        assert cell.isprintable()
        assert cell.lstrip()[:1] not in ("=", "+", "-", "@") or re.fullmatch(r"-?[\d.e-]+", cell), cell


@pytest.mark.parametrize("what", HOSTILE)
def test_best_yaml_has_no_line_that_the_ledger_wrote(what: str, events: list[dict[str, Any]], tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, with_texts(events, cycle([HOSTILE[what]])))
    for trial in sweep.view.trials.values():
        store = sweep.folder.store(trial.fingerprint)
        store.mkdir(parents=True)
        for name in (MODEL, ARCHITECTURE, REPORT):
            (store / name).touch()
    found = best.write_best(sweep)
    assert found is not None
    if "\0" in HOSTILE[what]:
        with pytest.raises(YamlError, match="is no text"):
            mapping_in(sweep.folder.best)
        return
    held = mapping_in(sweep.folder.best)
    assert held.keys() <= KNOBS.keys() and held["weights"] == HOSTILE[what]


class Page(HTMLParser):
    """Tags, attributes and texts of scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


@pytest.mark.medium
def test_the_report_and_the_pictures_have_no_element_that_the_ledger_wrote(
    events: list[dict[str, Any]], tmp_path: Path
) -> None:
    sweep = sweep_of(tmp_path, with_texts(events, cycle(HOSTILE.values())))
    text = write_report(sweep, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "details" in page.tags and "hostile" not in page.tags and "onhostile" not in page.attributes
    ours = [re.sub(r"<script type=\"text/plain\".*?</script>", "", text, flags=re.S)][0]
    assert page.tags.count("script") == 2 + ours.count("data-figure=") and "window.hostile" not in page.attributes
    assert all(char.isprintable() or char == "\n" for char in ours)
    save_figures(sweep.view, sweep.folder.pictures)
    for file in sweep.folder.pictures.glob("*.html"):
        found = Page(file.read_text(encoding="utf-8"))
        assert "hostile" not in found.tags and "onhostile" not in found.attributes


# --- names ------------------------------------------------------------------------------------------------------------

OUTSIDE = ["../../x", "/etc/x", "a/b", "..", ".", "", "x\0", "x\ny", "~", "a" * 300, "-rf", "x\\y", "\u202ex"]
FIELDS: dict[str, Callable[[list[dict[str, Any]], str], object]] = {
    "sweep": lambda found, bad: found[0].update(name=bad),
    "trial": lambda found, bad: found[1].update(trial=bad),
    "fingerprint": lambda found, bad: found[1].update(fingerprint=bad),
    "weights": lambda found, bad: found[0].update(weights=[{"arch": "x", "weights": None, "digest": bad}]),
    "weights of a trial": lambda found, bad: found[1]["knobs"].update(weights_digest=bad),
    "source": lambda found, bad: found[0].update(sources={"space": {"entry": bad, "files": {bad: "0" * 64}}}),
    "confirmed": lambda found, bad: found.append(
        {"event": "confirm_started", "time": 1.0, "trials": [bad], "seeds": [1], "split": False}
    ),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("bad", OUTSIDE, ids=ascii)
def test_a_name_that_is_none_is_refused_where_the_ledger_is_read(
    field: str, bad: str, events: list[dict[str, Any]], tmp_path: Path
) -> None:
    made = with_texts(events, cycle(["x"]))
    FIELDS[field](made, bad)
    with pytest.raises(LedgerError) as caught:
        sweep_of(tmp_path, made)
    assert "\n" not in str(caught.value) and "tune-rsst repair" in str(caught.value)


KEYS = {
    "params": lambda found, bad: found[1]["params"].update({bad: 1}),
    "knobs": lambda found, bad: found[1]["knobs"].update({bad: 1}),
    "settings": lambda found, bad: found[0]["settings"].update({bad: 1}),
    "versions": lambda found, bad: found[0].update(versions={bad: "1"}),
    "metrics": lambda found, bad: next(e for e in found if e["event"] == "reported")["metrics"].update({bad: 1}),
}


@pytest.mark.parametrize("field", KEYS)
@pytest.mark.parametrize("bad", ["", "=1", "a\nb", "a|b", "<b>", "\x1b[2J", "$x$", "[red]"], ids=ascii)
def test_heads_of_columns_flags_and_tags_are_names(
    field: str, bad: str, events: list[dict[str, Any]], tmp_path: Path
) -> None:
    made = with_texts(events, cycle(["x"]))
    KEYS[field](made, bad)
    with pytest.raises(LedgerError, match="has the name"):
        sweep_of(tmp_path, made)


@pytest.mark.parametrize("bad", OUTSIDE, ids=ascii)
def test_a_name_that_is_none_is_refused_where_a_path_is_made_too(bad: str, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    for make in (folder.store, folder.pictures_of, folder.export_of):
        with pytest.raises(ConfigError, match="valid is a name of letters"):
            make(bad)
    assert folder.store("f0") == tmp_path / "trials" / "f0"


def test_a_link_in_a_home_leads_no_output_out_of_it(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "home" / "fake")
    folder.path.mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for name in ("pictures", "exports"):
        (folder.path / name).symlink_to(tmp_path / "other")
    for make in (folder.pictures_of, folder.export_of):
        with pytest.raises(ConfigError, match="remove the link"):
            make("t0001")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "home")
    assert SweepFolder(link / "second").pictures_of("t0001") == link / "second" / "pictures" / "t0001"
