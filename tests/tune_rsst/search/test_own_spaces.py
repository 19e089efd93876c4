"""Spaces as users write them: each is taken as it stands, or refused in one line before anything is written."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from search_spaces import same_again
from search_spaces.space_files import function_at
from trainables.rsst.config import ConfigError
from tune_rsst import driver
from tune_rsst.ledger.file import Ledger
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Plan
from tune_rsst.results.table import print_table
from tune_rsst.search.spaces import settled
from tune_rsst.settings import written
from tune_rsst.settings.resolved import resolve
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

KNOBS = '"dataset": "digits", "epochs": 9, "lr": trial.suggest_float("lr", 1e-4, 1e-3)'


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def planned(space: str) -> Plan:
    plan = make_plan(written.given(None, [f"space={space}"]), None, False)
    assert isinstance(plan, Plan)
    return plan


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error) and str(error).startswith("space = "), str(error)
    assert not home.home().exists()
    return str(error)


# --- where a space lies ----------------------------------------------------------------------------------------------

LAID_OUT = {
    "a file with a sibling": ("mine.py:f", {"beside.py": "LOW = 1e-4", "mine.py": "import beside\n"}),
    "a sibling imported when it is called": (
        "mine.py:g",
        {"late_beside.py": "LOW = 1e-4", "mine.py": f"def g(trial):\n    import late_beside\n    return {{{KNOBS}}}\n"},
    ),
    "a module of the current folder": ("own_module:f", {"own_module.py": ""}),
    "a package with a relative import": ("own_pkg/s.py:f", {"own_pkg/__init__.py": "", "own_pkg/r.py": "L = 1",
                                                           "own_pkg/s.py": "from .r import L\n"}),
    "a package's module by its dotted name": ("own_pkg2.s:f", {"own_pkg2/__init__.py": "", "own_pkg2/r.py": "L = 1",
                                                               "own_pkg2/s.py": "from .r import L\n"}),
    "a package of packages": ("a_pkg/b/s.py:f", {"a_pkg/__init__.py": "LOW = 1", "a_pkg/b/__init__.py": "",
                                                 "a_pkg/b/s.py": "from .. import LOW\n"}),
    "a package itself": ("init_pkg:f", {"init_pkg/__init__.py": ""}),
    "names with blanks and other alphabets": ("搜索 空间/我的 空间.py:f", {"搜索 空间/我的 空间.py": ""}),
    "a file named like a module of Python": ("json.py:f", {"json.py": ""}),
    "defaults beside the trial": ("mine.py:f", {"mine.py": f"def f(trial, low=1, *a):\n    return {{{KNOBS}}}\n#"}),
    "a decorated function": ("mine.py:f", {"mine.py": "import functools\ndef d(f):\n    @functools.wraps(f)\n"
                                           "    def g(*a):\n        return f(*a)\n    return g\n@d\n"}),
    "a mapping that is no dict": ("mine.py:g", {"mine.py": "from types import MappingProxyType as M\n"
                                                f"def g(trial):\n    return M({{{KNOBS}}})\n"}),
    "its own random numbers with a seed": ("mine.py:g", {"mine.py": "import random\ndef g(trial):\n"
                                           f"    r = random.Random(3)\n    return {{{KNOBS}, 'rate': r.random()}}\n"}),
    "one that prints, at exit and below Python too": (
        "mine.py:f",
        {"mine.py": "import atexit, os\natexit.register(print, 'bye')\nos.write(1, b'loaded')\nprint('{}')\n"},
    ),
    "a set that is sorted": ("mine.py:g", {"mine.py": f"def g(trial):\n    return {{{KNOBS}, 'optimizer': "
                                           "trial.suggest_categorical('optimizer', sorted({'sgd', 'adamw'}))}\n"}),
}  # fmt: skip


@pytest.mark.parametrize("case", LAID_OUT)
def test_a_space_is_found_wherever_python_would_find_it_and_from_any_folder_later(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, files = LAID_OUT[case]
    for name, text in files.items():
        file = tmp_path / "user" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        place = space.rpartition(":")[0].removesuffix(".py").replace(".", "/")
        its_own = name.removesuffix(".py").removesuffix("/__init__") == place
        text += f"def f(trial):\n    return {{{KNOBS}}}\n" if its_own and not text.endswith("#") else ""
        file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "user")
    monkeypatch.setattr(same_again, "CHILDREN", 1)
    plan = planned(space)
    assert [draw.epochs for draw in plan.draws] == [9] * len(plan.draws)
    monkeypatch.chdir("/")
    address = plan.settings.space
    assert address.startswith(str(tmp_path)) and function_at(address)
    assert resolve({"space": address}).space == address


# --- what is refused, and where the fault is --------------------------------------------------------------------------

MISTAKES = f"""
import asyncio, functools, math, numpy, random, sys
def fine(trial):
    return {{{KNOBS}}}
def two(trial, study): return fine(trial)
def none(): return {{}}
def keyword(*, trial): return fine(trial)
async def later(trial): return fine(trial)
def several(trial):
    yield fine(trial)
class Callable:
    def __call__(self, trial): return fine(trial)
called = Callable()
def no_return(trial): fine(trial)
def numbered(trial): return {{**fine(trial), 3: 4}}
def deep(trial):
    return {{**fine(trial),
            "x": helper()}}
def helper():
    return {{}}["missing"]
def misspelt(trial):
    return {{**fine(trial),
            "wamrup": 1}}
def bad_value(trial):
    knobs = fine(trial)
    knobs["batch_size"] = -trial.suggest_int("batch_size", 1, 9)
    return knobs
def leaves(trial): sys.exit(0)
def report(trial): trial.report(0.5, 1)
def reversed_range(trial): return {{**fine(trial), "momentum": trial.suggest_float("momentum", 0.9, 0.1)}}
def log_of_zero(trial): return {{**fine(trial), "momentum": trial.suggest_float("momentum", 0, 0.9, log=True)}}
def log_step(trial): return {{**fine(trial), "momentum": trial.suggest_float("momentum", .1, .9, step=.1, log=True)}}
def odd_step(trial): return {{**fine(trial), "batch_size": trial.suggest_int("batch_size", 10, 20, step=3)}}
def cut(trial): return {{**fine(trial), "batch_size": trial.suggest_int("batch_size", 10.5, 20)}}
def no_number(trial): return {{**fine(trial), "momentum": trial.suggest_float("momentum", math.nan, 1)}}
def endless(trial): return {{**fine(trial), "momentum": trial.suggest_float("momentum", 0, math.inf)}}
def lists(trial): return {{**fine(trial), "batch_size": trial.suggest_categorical("batch_size", [[16], [32]])[0]}}
def no_choice(trial): return {{**fine(trial), "batch_size": trial.suggest_categorical("batch_size", [])}}
def numpy_choice(trial):
    return {{**fine(trial), "batch_size": trial.suggest_categorical("batch_size", list(numpy.arange(8, 10)))}}
def a_set(trial): return {{**fine(trial), "optimizer": trial.suggest_categorical("optimizer", {{"sgd", "adamw"}})}}
def equal(trial): return {{**fine(trial), "amp": trial.suggest_categorical("amp", [True, 1])}}
def twice(trial): return {{**fine(trial), "weight_decay": trial.suggest_float("lr", 1e-5, 1e-2)}}
def other_kind(trial):
    if trial.suggest_categorical("optimizer", ["sgd", "adamw"]) == "sgd":
        return {{**fine(trial), "momentum": trial.suggest_float("m", 0, 0.9)}}
    return {{**fine(trial), "momentum": trial.suggest_categorical("m", [0.1, 0.2])}}
"""
SAYS = {
    "two": "missing a required argument: 'study'",
    "none": "too many positional arguments",
    "keyword": "too many positional arguments",
    "later": "later is an async function",
    "several": "several is a generator",
    "Callable": "no module-level function (it is of the type type)",
    "called": "no module-level function (it is of the type Callable)",
    "no_return": "returned NoneType (mistakes.py, line 14)",
    "numbered": "returned the key 3",
    "deep": "KeyError: 'missing' (mistakes.py, line 20)",
    "misspelt": "wamrup = (given): valid is a known key only; did you mean warmup or amp? (mistakes.py, line 23)",
    "bad_value": "batch_size = -7: valid is a whole number ≥ 1 (mistakes.py, line 26)",
    "leaves": "SystemExit: 0",
    "report": "but no report (mistakes.py, line 29)",
    "reversed_range": "momentum: ",
    "log_of_zero": "momentum: ",
    "log_step": "momentum: ",
    "odd_step": "batch_size: ",
    "cut": "batch_size: 10.5 is no whole number",
    "no_number": "momentum: nan is no finite number",
    "endless": "momentum: inf is no finite number",
    "lists": "not [16]",
    "no_choice": "batch_size: ",
    "numpy_choice": "batch_size: a choice is a text",
    "a_set": "optimizer: choices are a list or a tuple, not a set",
    "equal": "amp: one choice is there twice",
    "twice": "lr: suggested twice in one trial",
    "other_kind": "m has other choices, or another kind",
}


@pytest.mark.parametrize("name", SAYS)
def test_a_mistake_in_a_space_is_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mistakes.py"
    file.write_text(MISTAKES, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        planned(f"{file}:{name}")
    assert SAYS[name] in one_line(caught.value)


FILES = {
    "a syntax error": ("def f(trial)\n    return 1\n", "SyntaxError: expected ':' (broken.py, line 1)"),
    "a missing package": ("\nimport no_such_package\n", "No module named 'no_such_package' (broken.py, line 2)"),
    "an exception": ("a = 1\n\n1 / 0\n", "ZeroDivisionError: division by zero (broken.py, line 3)"),
    "an exit": ("import sys\nsys.exit('bye')\n", "SystemExit: bye (broken.py, line 2)"),
    "a relative import without a package": ("from .ranges import LR\n", "no known parent package (broken.py, line 1)"),
    "not UTF-8": ("x = 'é'\n".encode("latin-1"), "SyntaxError: "),
    "a zero byte": (b"x = 1\0\n", "null bytes"),
    "an empty file": ("", "it has none"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_can_not_be_imported_is_one_line(case: str, tmp_path: Path) -> None:
    text, says = FILES[case]
    file = tmp_path / "broken.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        planned(f"{file}:f")
    assert says in one_line(caught.value)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("missing.py:f", "No such file or directory"),
        ("a_folder.py:f", "a_folder.py"),
        ("there.py", "add the function: there.py:f"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("folder/there:f", "No module named 'folder/there'"),
        (":f", "valid is"),
        ("json:loads", "a function that runs"),
        ("digit", "did you mean digits"),
    ],
)
def test_an_address_without_a_space_is_one_line(
    space: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_folder.py").mkdir()
    (tmp_path / "there.py").write_text(f"def f(trial):\n    return {{{KNOBS}}}\n")
    with pytest.raises(ConfigError) as caught:
        planned(space)
    assert says in one_line(caught.value)


# --- a function of its suggestions ------------------------------------------------------------------------------------

CHANGING = """
import os, random, time
from itertools import count
COUNTER = count()
random.seed(3)
def knobs(trial, **more): return {"lr": trial.suggest_float("lr", 1e-4, 1e-3), **more}
def by_dice(trial): return knobs(trial, momentum=random.random())
def by_clock(trial): return knobs(trial, warmup=time.perf_counter())
def by_counter(trial): return knobs(trial, warmup=next(COUNTER) % 2)
def by_a_set(trial): return knobs(trial, optimizer=trial.suggest_categorical("optimizer", list({"sgd", "adamw"})))
def in_the_order_of_a_set(trial):
    return {name: trial.suggest_float(name, 0.1, 0.2) for name in {"lr", "rate", "momentum", "label_smoothing"}}
def by_hash(trial): return knobs(trial, warmup=hash("warmup") % 1000)
def by_hour(trial): return knobs(trial, warmup=time.localtime().tm_hour)
def by_environment(trial): return knobs(trial, epochs=int(os.environ.get("MY_EPOCHS", "3")))
def needs_environment(trial): return knobs(trial, epochs=int(os.environ["MY_EPOCHS"]))
def by_process(trial): return knobs(trial, epochs=os.getpid())
def another_name(trial): return {"lr": trial.suggest_float(f"lr{next(COUNTER) % 2}", 1e-4, 1e-3)}
def steady(trial): return knobs(trial, data=os.environ.get("HOME"), o=trial.suggest_categorical("optimizer", "ab"))
"""
NAMES = [line.split()[1].partition("(")[0] for line in CHANGING.splitlines() if line.startswith("def ")][1:-1]
SAME = {"optimizer": "sgd", "rate": 0.1, "momentum": 0.1, "label_smoothing": 0.1, "lr0": 1.0, "lr1": 2.0}
GIVEN = [{"lr": 1e-4 * n, **SAME} for n in range(1, 9)]


@pytest.mark.parametrize("name", NAMES)
def test_a_space_that_is_no_function_of_its_suggestions_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_EPOCHS", "5")
    file = tmp_path / "changing.py"
    file.write_text(CHANGING, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^space = .*valid is a function of its suggestions alone"):
        same_again.check(f"{file}:{name}", function_at(f"{file}:{name}"), {}, GIVEN)


def test_a_space_that_is_one_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    file.write_text(CHANGING, encoding="utf-8")
    steady, fixed = function_at(f"{file}:steady"), {"momentum": 0.9}
    same_again.check(f"{file}:steady", steady, fixed, GIVEN)  # it raises where two answers differ
    assert len(same_again.answers(steady, fixed, GIVEN)) == len(GIVEN) > 0


# --- while it runs ----------------------------------------------------------------------------------------------------


def test_suggestions_that_are_not_valid_are_shown_with_their_reason_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draws of the plan are valid; a value that only the sampler finds later is not."""
    monkeypatch.setattr("tune_rsst.driver.sweep.MAX_ASKS", 3)
    folder = SweepFolder(tmp_path / "home" / "mine")
    folder.path.mkdir(parents=True)
    file = tmp_path / "mine.py"
    file.write_text(f"def f(trial):\n    return {{{KNOBS}, 'batch_size': 64 if CALM else 0}}\nCALM = True\n")
    settings, space = settled([f"space={file}:f", "name=mine", "optuna_storage=memory"])
    made = driver.assemble(Ledger(folder.ledger), settings, space)
    space.function.__globals__["CALM"] = False
    assert made.next_trial() is None
    screen = io.StringIO()
    print_table(Console(file=screen, width=250), Sweep(folder, made.view, "finished"))
    shown = next(line for line in screen.getvalue().splitlines() if "not valid" in line)
    assert shown.startswith(f"3 suggestions not valid, not trained: space = {file}:f: ")
    assert shown.endswith("batch_size = 0: valid is a whole number ≥ 1 (mine.py, line 2)")
