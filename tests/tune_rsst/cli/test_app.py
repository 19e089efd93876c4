"""Bad input on the command line is one line on stderr and exit code 2, whoever finds it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tune_rsst.cli import app


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["extend", "x"], "error: Missing argument 'N'; see "),
        (["delete"], "error: Missing argument 'sweep'; see "),
        (["list", "one"], "unexpected extra argument(s) (one); see "),
        (["show", "--where"], "'--where' requires an argument"),
        (["export", "nope", "--push", "x/y"], "sweep = nope: "),
        (["export", "nope/t0000", "--push", "x/y"], "sweep = nope: "),
        (["export", "nope", "--register", "x"], "sweep = nope: "),
        (["track", "nope"], "nope"),
        (["sync", "nope"], "nope"),
        (["confirm", "nope"], "nope"),
        (["extend", "x", "0"], "greater than or equal to 1"),
        (["sweeep"], "No such command 'sweeep'"),
        (["sweep", "--nam", "x"], "No such option"),
        (["spaces", "digits", "--samples", "0"], "greater than or equal to 1"),
        (["show", "--csv", "--json"], "--json or --csv, not both"),
        (["show"], "start one: tune-rsst sweep"),
        (["retry", "nope"], "a sweep in"),
        (["sweep", "trials=abc"], "trials = abc: valid is a whole number;"),
        (["sweep", "--space", "digits", "space=method"], "space=method was said too"),
        (["sweep", "tri\nals=1"], r"tri\nals = 1: valid is a setting"),
        (["sweep", "=1"], "override = =1: valid is key=value"),
        (["sweep", "lr=!!float x"], "lr = !!float x: valid is a value as YAML has it"),
        (["sweep", "dataset=\x1b[2J\n" + "x" * 9999], r"dataset = \x1b[2J\nxxx"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["tune-rsst", *words])
    with pytest.raises(SystemExit) as caught:
        app.main()
    said = capsys.readouterr()
    assert caught.value.code == 2 and says in said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out
    assert not re.search(r"[.?!:,;][;.] ", said.err), "one mark is enough"
    assert not (tmp_path / "home").exists()


def test_help_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tune-rsst", "retry", "--help"])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 0 and "failed trials" in capsys.readouterr().out
