"""What is installed: the base is what one trial needs, an extra what its libraries need; a missing one is one line."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import grimp
import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from benchmarks.install_size import NOT_FOR_USERS, canonical, needed, project
from tools.constraints import adapted
from tools.install import environment_for_uv
from trainables import __main__ as single
from trainables.errors import EXTRAS, ConfigError, NotInstalled, _from_where, explained, require
from tune_rsst.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("trainables", "search_spaces", "tune_rsst")
BROUGHT_BY = {"yaml": "pyyaml", "PIL": "pillow"}


def imported(*above: str) -> set[str]:
    """Top-level libraries that our packages import, anywhere in a file; with `above`: that these modules come to."""
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    found = set().union(*(graph.find_upstream_modules(name) for name in above)) if above else graph.modules
    return {name.partition(".")[0] for name in found} - {*PACKAGES} - {*sys.stdlib_module_names}


def distributions(lines: list[str]) -> set[str]:
    return {canonical(Requirement(line).name) for line in lines}


def test_the_base_is_what_a_single_run_imports() -> None:
    """tests/trainables/test_main.py trains with it alone. `OneLineParser` of the export is part of the base too."""
    found = (
        imported("trainables.__main__", "trainables.worker.flat_trial", "trainables.export.__main__") - EXTRAS.keys()
    )
    assert {canonical(BROUGHT_BY.get(name, name)) for name in found} == distributions(project()[0])


def test_every_other_library_belongs_to_an_extra_that_installs_it() -> None:
    base = {
        name for name, its in packages_distributions().items() if {*map(canonical, its)} & distributions(project()[0])
    }
    assert imported() - base <= EXTRAS.keys()
    installed_by = {extra: needed(lines) for extra, lines in project()[1].items()}
    holds = packages_distributions()
    lost = [module for module, extra in EXTRAS.items() if not {*map(canonical, holds[module])} & installed_by[extra]]
    assert lost == []


def test_all_is_every_extra_of_a_user() -> None:
    extras = project()[1]
    (all_of_them,) = map(Requirement, extras["all"])
    assert all_of_them.extras == extras.keys() - {"all", *NOT_FOR_USERS}
    assert f"EXTRAS := all,{','.join(sorted(NOT_FOR_USERS))}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_library_says_which_extra_brings_it(module: str) -> None:
    with pytest.raises(ConfigError) as caught, explained():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, ImportError) and error.name == module
    assert str(error).startswith(f"environment = {sys.prefix}: valid is one with {module}; pip install -e '{ROOT}[")
    assert str(error).endswith(f"[{EXTRAS[module]}]'") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("recorded", "command"),
    [
        ({}, "'tune-rsst[onnx]'"),
        ({"url": "file:///a%20b/tune", "dir_info": {}}, "'/a b/tune[onnx]'"),
        (
            {"url": "file:///x/tune_rsst-1-py3-none-any.whl"},
            "'tune-rsst[onnx] @ file:///x/tune_rsst-1-py3-none-any.whl'",
        ),
        (
            {"url": "https://git.example/t", "vcs_info": {"vcs": "git", "commit_id": "9f86"}},
            "'tune-rsst[onnx] @ git+https://git.example/t@9f86'",
        ),
        (
            {"url": "https://files.example/t.tar.gz", "archive_info": {}},
            "'tune-rsst[onnx] @ https://files.example/t.tar.gz'",
        ),
    ],
)
def test_an_extra_comes_from_where_the_program_came(recorded: dict[str, Any], command: str) -> None:
    assert _from_where("onnx", None, recorded) == f"pip install {command}"
    assert _from_where("onnx", Path("/a b/c"), recorded) == "pip install -e '/a b/c[onnx]'"


@pytest.mark.parametrize(
    "error", [ImportError("cannot import name 'x' from 'ray'", name="ray.tune"), ImportError("odd")]
)
def test_an_import_that_fails_for_another_reason_stays_as_it_is(error: ImportError) -> None:
    with pytest.raises(ImportError) as caught, explained():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("extra", sorted({*EXTRAS.values()}))
def test_an_extra_that_is_there_is_not_refused_and_one_that_lacks_a_library_is(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(extra)
    monkeypatch.setitem(EXTRAS, "no_such_library", extra)
    with pytest.raises(NotInstalled, match=r"one with no_such_library; pip install"):
        require(extra)


def test_both_programs_say_their_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        single.main(["--version"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and re.fullmatch(r"tune-rsst \d+\.\d+\.\d+\n", said)
    assert CliRunner().invoke(app, ["--version"]).output == said


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("tune-rsst exp", ["export"]),
        ("tune-rsst show --js", ["--json"]),
        ("tune-rsst extend fir", ["first"]),
        ("tune-rsst delete ", ["first", "second"]),
        ("tune-rsst report x", []),
    ],
)
def test_the_shell_completes_commands_options_and_sweeps(
    typed: str, completed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ledger.jsonl").write_text("")
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1), "_TUNE_RSST_COMPLETE": "complete_bash"}
    assert CliRunner().invoke(app, env=words, prog_name="tune-rsst").output.split() == completed


BASE_ONLY = """
import sys
from tests import base_only
base_only.NAMES &= base_only.forbidden(*sys.argv[1].split()) - {"tune_rsst", "search_spaces"}
sys.argv = ["tune-rsst", *sys.argv[2:]]
from tune_rsst.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("there", "words", "code", "says"),
    [
        ("", "--version", 2, f"one with typer; pip install -e '{ROOT}[sweep]'"),
        ("", "sweep trials=1", 2, f"one with typer; pip install -e '{ROOT}[sweep]'"),
        ("typer rich", "settings", 2, "one with optuna; pip install"),
    ],
)
def test_the_base_alone_says_what_a_sweep_needs(there: str, words: str, code: int, says: str, tmp_path: Path) -> None:
    environment = os.environ | {"TUNE_RSST_HOME": str(tmp_path / "home")}
    program = [sys.executable, "-c", BASE_ONLY, there, *words.split()]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "") and not (tmp_path / "home").exists()
    assert done.stderr.startswith("error: environment = ") and done.stderr.count("\n") == 1 and says in done.stderr


def test_from_python_it_is_an_import_error() -> None:
    """`RSSTTrainable` too: tests/trainables/worker/test_flat_trial.py."""
    program = BASE_ONLY.partition("sys.argv =")[0] + "from tune_rsst import sweep"
    done = subprocess.run([sys.executable, "-c", program, ""], capture_output=True, text=True, timeout=60, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("trainables.errors.NotInstalled: environment = ") and f"pip install -e '{ROOT}[sweep]'" in last
    )


KEPT_PINS = ["# tested", "numpy==2.4.6", "torch-pruning==1.6.1", "nvidia-ml-py==13.615.71"]
PINS = [
    *KEPT_PINS, "cuda-toolkit==13.2.2", "nvidia-cudnn-cu13==9.26.0.51", "torch==2.15.0", "torchvision==0.29.2",
    "triton==3.9.0",
]  # fmt: skip
ALLOWED = [Requirement("torch>=2.10,<2.16"), Requirement("torchvision>=0.25,<0.30"), Requirement("numpy>=2,<3")]


@pytest.mark.parametrize(
    ("there", "pins"),
    [
        ({}, PINS),
        ({"torch": "2.15.0", "torchvision": "0.29.2"}, PINS),
        ({"torch": "2.9.1", "torchvision": "0.24.1"}, PINS),
        ({"torchvision": "0.28.0"}, PINS),
        (
            {"torch": "2.14.1+cpu", "torchvision": "0.29.1+cpu"},
            [*KEPT_PINS, "torch==2.14.1+cpu", "torchvision==0.29.1+cpu"],
        ),
        ({"torch": "2.15.0+cpu", "torchvision": "0.29.2"}, [*KEPT_PINS, "torch==2.15.0+cpu", "torchvision==0.29.2"]),
        ({"torch": "2.14.1"}, [*KEPT_PINS, "torch==2.14.1"]),
        ({"torch": "2.14.0a0+vendor"}, [*KEPT_PINS, "torch==2.14.0a0+vendor"]),
        ({"torch": "2.14.1", "torchvision": "0.24.1"}, [*KEPT_PINS, "torch==2.14.1"]),
    ],
    ids=str,
)
def test_a_torch_that_is_there_stays_where_the_project_allows_it(there: dict[str, str], pins: list[str]) -> None:
    assert adapted(PINS, ALLOWED, there) == pins


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ("", {}),
        ("global.index-url='file:///a'", {"UV_DEFAULT_INDEX": "file:///a"}),
        ("global.find-links='/a'\n:env:.find-links='/b\\n/c'", {"UV_FIND_LINKS": "/b,/c"}),
        ("global.extra-index-url='file:///a file:///b'", {"UV_INDEX": "file:///a file:///b"}),
        (":env:.cert='/c.pem'\n:env:.default-timeout='180'", {"SSL_CERT_FILE": "/c.pem", "UV_HTTP_TIMEOUT": "180"}),
        ("install.no-compile='true'\nglobal.progress-bar='off'\n:env:.no-input='1'", {}),
        ("global.no-binary=':all:'", None),
        ("install.user='true'", None),
        ("global.no-index='true'", None),
        ("download.index-url='file:///a'", None),
    ],
)
def test_uv_is_told_what_pips_configuration_says_or_pip_does_it(listed: str, told: dict[str, str] | None) -> None:
    found = environment_for_uv(listed)
    assert found == (told if told is None else told | {"UV_INDEX_STRATEGY": "unsafe-best-match"})
