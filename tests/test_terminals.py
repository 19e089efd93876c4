"""No terminal ends a run: every command, in every encoding and width; files are in UTF-8 whatever the locale."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables import __main__ as single
from trainables.terminal import is_text
from tune_rsst.cli import app

ENCODINGS = ("ascii", "latin-1", "gbk", "cp1252", "shift_jis", "utf-8")
COMMANDS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "help": (app.main, ["--help"]),
    "help of sweep": (app.main, ["sweep", "--help"]),
    "settings": (app.main, ["settings"]),
    "spaces": (app.main, ["spaces"]),
    "a space": (app.main, ["spaces", "digits", "dataset=digits"]),
    "an error with a name": (app.main, ["show", "✓ 成功 ñ"]),
    "a dry refusal": (app.main, ["sweep", "space=搜索.py:空间"]),
    "help of a trial": (single.main, ["--help"]),
    "a trial's knobs": (single.main, ["--print-config", "--save_dir", "结果 ñ"]),
    "a trial's error": (single.main, ["--arch", "模型"]),
}


def run(words: list[str], program: Callable[[], object], encoding: str, patch: pytest.MonkeyPatch) -> str:
    """What is shown on a terminal of that encoding; nothing but SystemExit may be raised."""
    shown = io.BytesIO()
    terminal = io.TextIOWrapper(shown, encoding=encoding, write_through=True)
    patch.setattr(sys, "stdout", terminal)
    patch.setattr(sys, "stderr", terminal)
    patch.setattr(sys, "argv", ["program", *words])
    code: object = 0
    try:
        program()
    except SystemExit as left:
        code = left.code
    patch.undo()
    assert code in (0, 2), shown.getvalue()
    return shown.getvalue().decode(encoding)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_ends_a_command(command: str, encoding: str, tmp_path: Path) -> None:
    program, words = COMMANDS[command]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(tmp_path / "家 ñ ✓"))
        assert "Traceback" not in (shown := run(words, program, encoding, patch)) and len(shown) > 20


@pytest.mark.parametrize("environment", [{"COLUMNS": "1"}, {"COLUMNS": "0", "TERM": "dumb"}, {"COLUMNS": "many"}, {}])
@pytest.mark.parametrize("command", ["help", "a space", "settings", "help of a trial", "a dry refusal"])
def test_no_width_ends_a_command(command: str, environment: dict[str, str], tmp_path: Path) -> None:
    program, words = COMMANDS[command]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
        patch.delenv("COLUMNS", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        assert run(words, program, "ascii", patch)


def test_a_trial_runs_on_an_ascii_terminal_and_its_log_is_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "结果 ñ"
    words = ["--arch", "vit_digits", "--dataset", "digits", "--epochs", "1", "--pruning_times", "1", "--warmup", "0"]
    with pytest.MonkeyPatch.context() as patch:
        shown = run([*words, "--save_dir", str(folder)], single.main, "ascii", patch)
    assert "\\u7ed3\\u679c \\xf1" in shown and "finished" in shown
    assert str(folder) in (folder / "run.log").read_text(encoding="utf-8")


@pytest.mark.medium
def test_words_that_are_no_text_are_refused_in_one_line() -> None:
    """The locale is C and UTF-8 mode is off: Python can't even name the file."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    bare |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "tune_rsst", "sweep", "data=数据"]
    done = subprocess.run(words, env=bare, capture_output=True, check=False)
    said = done.stderr.decode("ascii")
    assert done.returncode == 2 and said.startswith("error: argument = ") and said.count("\n") == 1, said
    assert "set PYTHONUTF8=1" in said
    assert not is_text("\udce6") and is_text("数据 ✓")


def test_no_file_is_read_or_written_in_the_locales_encoding(repo_root: Path) -> None:
    found = []
    for package in ("trainables", "tune_rsst", "search_spaces"):
        for path in (repo_root / package).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(call, ast.Call) and _by_the_locale(call):
                    found.append(f"{path.relative_to(repo_root)}:{call.lineno}")
    assert found == []


def _by_the_locale(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if "encoding" in named:
        return False
    if name in ("read_text", "write_text"):
        return True
    if "text" in named or "universal_newlines" in named:
        return name in ("run", "Popen", "check_output")
    owner = getattr(getattr(call.func, "value", None), "id", "")
    modes = [value.value for value in call.args if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return name in ("open", "fdopen") and owner not in ("os", "tarfile", "Image") and not any("b" in m for m in modes)
