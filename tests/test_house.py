"""The house rules of CONTRIBUTING.md that no linter checks: sizes, links, what the core may import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("trainables", "search_spaces", "tune_rsst")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_MODULES = 12
DOCUMENT = re.compile(r"([\w./-]*\w\.md)\b(?:,? \(?\"([^\"]+)\")?")  # docs/method.md, "Ramps"
PYTHON_FILE = re.compile(r"[\w./*]*\w\.py\b")
FILES_OF_USERS = {"path/to/file.py"}  # where a docstring says how an argument is written
CORE_MAY_IMPORT = {"torch", "torchvision", "timm", "numpy", "safetensors", "PIL", "trainables"} | set(
    sys.stdlib_module_names
)
LIBRARIES = {
    "torch",
    "torchvision",
    "timm",
    "optuna",
    "ray",
    "mlflow",
    "numpy",
    "PIL",
    "tune",
    "huggingface_hub",
    "show",
}
ENDINGS_OF_FILES = (["py"], ["json"], ["lock"], ["yaml"])
SERVICES = ("ray", "optuna", "mlflow", "search_spaces", "tune_rsst")
TEMPORARY = re.compile(r"\.(tmp|temp|part|partial|old|new)\b")
PUT_ASIDE = {  # what is damaged or overtaken gets a name under which people find it
    "trainables/rsst/store/checkpoint.py",
    "tune_rsst/search/study_database.py",
    "tune_rsst/storage/ledger_objects.py",
}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of every function of a file, decorators not counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_the_packages_are_where_this_test_looks() -> None:
    assert len(sources("trainables")) >= 5


def test_no_file_is_over_300_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*PACKAGES)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_folder_holds_more_than_12_modules() -> None:
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in sources(*PACKAGES) if path.name != "__init__.py")
    assert len(folders) >= 20
    assert {folder: modules for folder, modules in folders.items() if modules > MAX_MODULES} == {}


def docstrings(path: Path) -> Iterator[str]:
    """Every docstring of a file: the module's, its classes', its functions'."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_python_files_that_docstrings_name_exist() -> None:
    """A name with a folder is looked for below the root and beside the file, a bare name anywhere in the repository."""
    everywhere = sources(*PACKAGES, "benchmarks", "tests")
    bare = {path.name for path in everywhere}
    lost, checked = [], 0
    for path in sources(*PACKAGES):
        for text in docstrings(path):
            for name in PYTHON_FILE.findall(text):
                checked += 1
                places = (ROOT / name, path.parent / name)
                if not (name in bare or any(place.exists() for place in places)) and name not in FILES_OF_USERS:
                    lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert checked > 20 and lost == []


def test_documents_and_headings_that_docstrings_name_exist() -> None:
    lost, checked = [], 0
    for path in sources(*PACKAGES, "benchmarks", "tests"):
        for text in docstrings(path):
            for name, heading in DOCUMENT.findall(" ".join(text.split())):
                checked += 1
                document = ROOT / name
                headings = (
                    re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.M) if document.exists() else []
                )
                if not document.exists() or (heading and heading not in headings):
                    lost.append(f"{path.relative_to(ROOT)}: {name} {heading}".strip())
    assert checked > 8 and lost == []


BACKTICKED = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)(?:\([^`]*\))?`(?!`)")


class Names(NamedTuple):
    """What the code defines: top-level names by module, members by class, names of arguments, every identifier used."""

    modules: dict[str, set[str]]
    classes: dict[str, set[str]]
    arguments: set[str]
    used: set[str]

    def has(self, first: str, rest: list[str]) -> bool:
        """Whether `first` is used somewhere, and has `rest[0]` where it is a module, a class or an argument."""
        if first not in self.used | self.modules.keys() or not rest:
            return first in self.used | self.modules.keys()
        members = self.modules.get(first, set()) | self.classes.get(first, set())
        if first in self.arguments:
            members = members.union(*self.classes.values())
        return rest[0] in (members or self.used)


def names_of_the_code() -> Names:
    modules: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    arguments: set[str] = set()
    used: set[str] = set()
    for path in sources(*PACKAGES, "benchmarks", "tests"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {id(node.body[0].value) for node in ast.walk(tree) if has_docstring(node)}  # type: ignore[attr-defined]
        stem = path.parent.name if path.name == "__init__.py" else path.stem
        only_for_types = [inner for node in tree.body if isinstance(node, ast.If) for inner in node.body]
        modules.setdefault(stem, set()).update(identifiers([*tree.body, *only_for_types], texts))
        above = path.parent.parent if path.name == "__init__.py" else path.parent
        modules.setdefault(above.name, set()).add(stem)  # a package has its modules
        for node in ast.walk(tree):
            used |= identifiers([node], texts)
            if isinstance(node, ast.arg):
                arguments.add(node.arg)
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, set()).update(identifiers(ast.walk(node), texts))
    return Names(modules, classes, arguments, used)


def has_docstring(node: ast.AST) -> bool:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, kinds) and ast.get_docstring(node) is not None


def identifiers(nodes: Iterable[ast.AST], docstrings: set[int]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.arg(arg=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name.split(".")[0] for alias in names}
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                found |= set(re.findall(r"[A-Za-z_]\w*", text))
            case _:
                pass
    return found


def test_names_in_backticks_in_docstrings_exist() -> None:
    """`name`: used somewhere in the code. `module.name`, `Class.name`: there. A library's names are not looked at."""
    names = names_of_the_code()
    lost, checked = [], 0
    for path in sources(*PACKAGES):
        for text in docstrings(path):
            for quoted in BACKTICKED.findall(text):
                first, *rest = quoted.strip(".").split(".")
                if first not in LIBRARIES and rest[-1:] not in ENDINGS_OF_FILES:
                    checked += 1
                    lost += [] if names.has(first, rest) else [f"{path.relative_to(ROOT)}: `{quoted}`"]
    assert checked > 200 and lost == []


def test_raises_names_only_errors_that_a_caller_would_not_expect() -> None:
    """ConfigError, SweepBusy and LedgerError are the rule: one line for the user, made by the command line."""
    named = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(*PACKAGES)
        for text in docstrings(path)
        for name in re.findall(r"\b(ConfigError|SweepBusy|LedgerError)\b[^\n]*: ", text.partition("Raises:")[2])
    ]
    assert named == []


def errors_said(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every f-string that begins with "error: ", where it is, and what is put into it by no call of `shown`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.JoinedStr(values=[ast.Constant(value=str(start)), *parts]) if start.startswith("error: "):
                holes = [part.value for part in parts if isinstance(part, ast.FormattedValue)]
                of_shown = [isinstance(hole, ast.Call) and ast.unparse(hole.func) == "shown" for hole in holes]
                raw = [ast.unparse(hole) for hole, fine in zip(holes, of_shown, strict=True) if not fine]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", raw


def test_what_ends_a_program_is_shown_in_one_line() -> None:
    """`hint` and `smaller` are words of the program, `_next` is a quoted command."""
    said = [found for path in sources(*PACKAGES) for found in errors_said(path)]
    assert len(said) >= 7
    own = {"hint", "smaller", "_next(folder)"}
    assert [f"{where}: {raw}" for where, raw in said if set(raw) - own] == []


def test_only_the_locks_module_takes_locks() -> None:
    elsewhere = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        if re.search(r"\b(fcntl|lockf|flock)\b", path.read_text(encoding="utf-8")) and path.name != "locks.py"
    ]
    assert elsewhere == []


def renamings(path: Path) -> Iterator[str]:
    """What a file knows of temporary names: such a name in a string, or a call that renames."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and TEMPORARY.search(node.value):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.value[:40]!r}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, arguments = node.func.attr, len(node.args) + len(node.keywords)
            of_os = isinstance(node.func.value, ast.Name) and node.func.value.id in ("os", "shutil")
            renames = called in ("rename", "renames", "move") if of_os else called == "rename"
            if renames or called == "mkstemp" or (called == "replace" and (of_os or arguments == 1)):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {called}"


def test_only_the_files_module_writes_and_recognises_temporary_names() -> None:
    """A string's `replace` takes two arguments and a path's one."""
    everywhere = [path for path in sources(*PACKAGES, "benchmarks") if path.parent != ROOT / "trainables" / "storage"]
    found = [line for path in everywhere for line in renamings(path)]
    assert [line for line in found if line.split(":")[0] not in PUT_ASIDE] == []
    assert {line.split(":")[0] for line in found} == PUT_ASIDE, "one rename each, and no file that is not there"
    assert len(found) == len(PUT_ASIDE)
    assert len(list(renamings(ROOT / "trainables" / "storage" / "files.py"))) >= 3


def test_no_function_is_over_60_lines() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in sources(*PACKAGES)
        for name, lines in functions(path)
        if lines > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES, "benchmarks", "tests")
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_of_the_repository_leads_somewhere(document: Path) -> None:
    targets = [link.split("#")[0] for link in LINK.findall(document.read_text(encoding="utf-8"))]
    files = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert [target for target in files if not (document.parent / target).exists()] == []


def imported_names(path: Path) -> set[str]:
    """Top-level names that a module imports when it is itself imported (imports inside functions are on demand)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(sub) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for sub in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sources("trainables/rsst"), ids=lambda path: path.stem)
def test_the_core_imports_only_what_a_gpu_box_without_ray_has(path: Path) -> None:
    assert imported_names(path) - CORE_MAY_IMPORT == set()


def test_the_core_imports_with_the_services_blocked() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("trainables")
        if path.stem not in ("ray_trainable", "tune_trainable", "__main__")
    ]
    program = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {SERVICES!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_only_looks_at_a_sweep_imports_nothing_that_takes_seconds() -> None:
    modules = [*("cli.app", "cli.results", "results.as_json", "results.table", "results.query", "results.live"),
               *("report.page", "report.sweep_figures", "report.pictures", "tracking.uploader"),
               *("settings.settings", "storage.home", "storage.bucket")]  # fmt: skip
    heavy = ("torch", "timm", "ray", "optuna", "mlflow", "plotly", "matplotlib")
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(f'tune_rsst.{{name}}')\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]
