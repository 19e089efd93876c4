"""Which files a user's code is, and when a resume may run it. Nothing is run to find that out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainables.errors import ConfigError
from trainables.user_code import source
from trainables.user_code.source import Source, to_run, wrong_record

CANARY = "import os; os.environ['CANARY'] = 'dead'\n"


def laid_out(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CANARY + text, encoding="utf-8")
    return folder / next(iter(files))


@pytest.fixture(autouse=True)
def _alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CANARY", "alive")
    monkeypatch.setattr(sys, "pycache_prefix", sys.pycache_prefix)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    yield
    assert os.environ["CANARY"] == "alive"


FOUND = {
    "alone": ({"s.py": "import json, numpy, os.path"}, ["s.py"]),
    "siblings of siblings": ({"s.py": "import a", "a.py": "from b import x", "b.py": ""}, ["a.py", "b.py", "s.py"]),
    "inside a function": ({"s.py": "def f(trial):\n    import a\n", "a.py": ""}, ["a.py", "s.py"]),
    "not imported": ({"s.py": "", "a.py": ""}, ["s.py"]),
    "a circle": ({"s.py": "import a", "a.py": "import s"}, ["a.py", "s.py"]),
    "a package": ({"s.py": "import p.q.r", "p/__init__.py": "", "p/q/__init__.py": "", "p/q/r.py": "", "p/z.py": ""},
                  ["p/__init__.py", "p/q/__init__.py", "p/q/r.py", "s.py"]),
    "a folder without __init__": ({"s.py": "from p import q", "p/q.py": ""}, ["p/q.py", "s.py"]),
    "within a package": ({"p/s.py": "from . import a\nfrom ..p.b import x\nfrom .. import c", "p/__init__.py": "",
                          "p/a.py": "", "p/b.py": "", "c.py": ""}, ["p/__init__.py", "p/a.py", "p/b.py", "p/s.py"]),
    "what hides a module of Python": ({"s.py": "import json", "json.py": ""}, ["json.py", "s.py"]),
    "ours": ({"s.py": "import trainables.text, search_spaces", "trainables/text.py": "", "search_spaces.py": ""},
             ["s.py"]),
    "no Python": ({"s.py": "def ("}, ["s.py"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_the_files_that_a_file_imports_beside_it_are_found_and_copied(case: str, tmp_path: Path) -> None:
    files, names = FOUND[case]
    found = Source.of(laid_out(tmp_path / "user", files))
    assert [name for name in found.files if name != "c.py"] == names and not wrong_record(found.record())
    found.copy_into(tmp_path / "code")
    found.copy_into(tmp_path / "code")
    copy = Source.recalled(found.record(), tmp_path / "code")
    assert copy.intact and copy.digest == found.digest and copy.path.read_bytes() == found.path.read_bytes()


def test_too_many_and_too_large_files_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MOST_FILES", 2)
    monkeypatch.setattr(source, "MOST_BYTES", 1000)
    with pytest.raises(OSError, match="more than 2 files"):
        Source.of(laid_out(tmp_path / "many", {"s.py": "import a, b", "a.py": "", "b.py": ""}))
    with pytest.raises(OSError, match="larger than"):
        Source.of(laid_out(tmp_path / "large", {"s.py": "#" * 1000}))


FINE = {"s.py": "0" * 64}
WRONG: dict[str, Any] = {
    "none": None,
    "a list": [],
    "no files": {"entry": "s.py"},
    "files of another kind": {"entry": "s.py", "files": ["s.py"]},
    "another entry": {"entry": "t.py", "files": FINE},
    "an entry of another kind": {"entry": 3, "files": FINE},
    "from the root": {"entry": "s.py", "files": {**FINE, "/etc/s.py": "0" * 64}},
    "upwards": {"entry": "s.py", "files": {**FINE, "../s.py": "0" * 64}},
    "upwards inside": {"entry": "s.py", "files": {**FINE, "a/../../s.py": "0" * 64}},
    "a zero byte": {"entry": "s.py", "files": {**FINE, "a\0.py": "0" * 64}},
    "no Python": {"entry": "s.py", "files": {**FINE, "a.so": "0" * 64}},
    "no digest": {"entry": "s.py", "files": {"s.py": "x"}},
}


@pytest.mark.parametrize("case", WRONG)
def test_records_of_strangers_that_are_none_are_refused(case: str) -> None:
    assert wrong_record(WRONG[case]) and not wrong_record({"entry": "s.py", "files": FINE})


def original(folder: Path) -> Path:
    return laid_out(folder, {"s.py": "import a", "a.py": ""})


def plant(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")


CHANGES = {
    "as it was": lambda user, copy: None,
    "gone": lambda user, copy: (user / "s.py").unlink(),
    "changed": lambda user, copy: (user / "s.py").write_text("import a"),
    "a changed sibling": lambda user, copy: (user / "a.py").write_text("import os"),
    "a new sibling": lambda user, copy: (user / "os.py").write_text("") and None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_resume_runs_the_file_as_it_was_else_the_copy_where_it_is_trusted(change: str, tmp_path: Path) -> None:
    user, code = tmp_path / "user", tmp_path / "home" / "sweep" / "code"
    path = original(user)
    began = Source.of(path)
    began.copy_into(code)
    copy = Source.recalled(began.record(), code)
    CHANGES[change](user, copy.root)
    for trust in (False, True):
        given = ("space", began.record(), [path], code, tmp_path / "home", trust)
        if change == "as it was":
            assert to_run(*given) == path
        elif trust:
            assert to_run(*given) == copy.path
        else:
            with pytest.raises(ConfigError, match=r"^space = .*digest .*--trust") as caught:
                to_run(*given)
            assert "\n" not in str(caught.value)


def test_the_same_file_in_another_place_is_the_same_and_in_the_home_it_is_not(tmp_path: Path) -> None:
    path, code = original(tmp_path / "user"), tmp_path / "home" / "sweep" / "code"
    record = Source.of(path).record()
    path.unlink()
    moved = original(tmp_path / "job2")
    assert to_run("space", record, [moved, path], code, tmp_path / "home", False) == moved
    inside = original(tmp_path / "home")
    with pytest.raises(ConfigError, match="lies in TUNE_RSST_HOME"):
        to_run("space", record, [inside], code, tmp_path / "home", False)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "home")
    with pytest.raises(ConfigError, match="lies in TUNE_RSST_HOME"):
        to_run("space", record, [link / "s.py"], code, tmp_path / "home", False)


@pytest.mark.parametrize(
    "name", ["a.cpython-312-x86_64-linux-gnu.so", "numpy.py", "b/numpy.py", "a.pyc", "os/__init__.py"]
)
def test_a_copy_with_something_beside_it_is_not_run(name: str, tmp_path: Path) -> None:
    path, code = original(tmp_path / "user"), tmp_path / "code"
    began = Source.of(path)
    began.copy_into(code)
    path.unlink()
    plant(Source.recalled(began.record(), code).root / name)
    with pytest.raises(ConfigError, match="is gone or changed"):
        to_run("space", began.record(), [path], code, tmp_path / "home", True)


def test_what_was_compiled_beside_a_copy_is_not_read(tmp_path: Path) -> None:
    path, code = original(tmp_path / "user"), tmp_path / "code"
    began = Source.of(path)
    began.copy_into(code)
    path.unlink()
    copy = Source.recalled(began.record(), code)
    plant(copy.root / "__pycache__" / "s.cpython-312.pyc")
    assert to_run("space", began.record(), [path], code, tmp_path / "home", True) == copy.path
    assert sys.pycache_prefix == os.devnull and sys.dont_write_bytecode
