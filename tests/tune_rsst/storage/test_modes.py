"""A home is its owner's alone, or a group's: whoever of it runs, shows and resumes; others get one line."""

from __future__ import annotations

import grp
import json
import os
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainables.storage import modes
from trainables.storage.files import replaced, replaced_folder
from tune_rsst.runners import local_ray

ROOT = Path(__file__).parents[3]
FIRST, SECOND, STRANGER = "nobody", "daemon", "bin"
GROUP = "users"  # of this machine, and none of the three users' own
PROGRAM = """
import json, os, pwd, sys
from functools import partial
import mlflow.store.tracking.sqlalchemy_store
import tune_rsst.driver, tune_rsst.tracking.uploader
from tune_rsst.cli import app
from tune_rsst.conduct import run
from tune_rsst.results.table import make_console
from tune_rsst.runners import serial

def here(plan):
    folder = plan.folder
    raise SystemExit(run(plan, make_console(), partial(serial.run, folder=folder), models=False))

app._run = here  # without Ray

def step(place, user, groups, home, words):
    os.setgroups(groups)
    os.setgid(pwd.getpwnam(user).pw_gid)
    os.setuid(pwd.getpwnam(user).pw_uid)
    os.umask(0o022)
    os.environ |= {"HOME": os.path.join(place, "of-" + user), "USER": user, "TUNE_RSST_HOME": home}
    sys.argv = ["tune-rsst", *words]
    app.main()

done, place = [], sys.argv[1]
for n, (user, groups, home, words) in enumerate(json.loads(sys.argv[2])):
    files = [os.path.join(place, f"{n}.{name}") for name in ("out", "err")]
    if not (child := os.fork()):
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        code = 1
        try:
            step(place, user, groups, home, words)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done.append([code, *(open(file).read() for file in files)])
print(json.dumps(done))
"""
QUICK = ["target_density=0.55", "rate=0.5", "epochs=1", "batch_size=128", "stopping=none", "confirm=0", "trials=1"]


@dataclass
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        return self.code == 2 and len(self.err.strip().splitlines()) == 1 and "Traceback" not in self.err


def done_by(place: Path, steps: Sequence[tuple[str, str, Sequence[str]]]) -> list[Done]:
    """What `tune-rsst` does for several users, one after the other; each has the umask 022, two are of the group."""
    group = grp.getgrnam(GROUP).gr_gid
    asked = [(user, [] if user == STRANGER else [group], str(place / home), words) for home, user, words in steps]
    # Python and the packages may lie where only root can go, below /root for example: what is open is reached.
    tops = [os.open(path, os.O_PATH) for path in (sys.base_prefix, ROOT, sysconfig.get_path("purelib"))]
    python, *paths = (f"/proc/self/fd/{number}" for number in tops)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONHOME": python,
        "PYTHONPATH": ":".join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    program = f"{python}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    words = [program, "-c", PROGRAM, str(place), json.dumps(asked)]
    how: dict[str, Any] = {"capture_output": True, "text": True, "pass_fds": tops, "cwd": place}
    try:
        found = subprocess.run(words, env=environment, timeout=200, **how)
    finally:
        for number in tops:
            os.close(number)
    assert found.returncode == 0, found.stderr
    return [Done(*one) for one in json.loads(found.stdout.splitlines()[-1])]


def modes_in(home: Path) -> dict[str, tuple[str, int]]:
    """Mode and group of the home and all that is in it, links left out."""
    found = {}
    for path in (home, *home.rglob("*")):
        about = path.lstat()
        if not stat.S_ISLNK(about.st_mode):
            found[str(path.relative_to(home))] = (stat.filemode(about.st_mode), about.st_gid)
    return found


OTHERS = ["show"], ["list"], ["sweep", "name=two"], ["sweep", "--resume", "name=one"], ["extend", "one", "1"]


@pytest.fixture(scope="module")
def homes() -> Iterator[tuple[Path, list[Done]]]:
    """A home of FIRST's and one of the group's, in a folder that everybody may reach; what was done in them."""
    if os.geteuid() != 0:
        pytest.skip("another user's processes can only be started by root")
    with tempfile.TemporaryDirectory(prefix="modes-") as folder:  # pytest takes care that nobody reaches its own
        place = Path(folder)
        place.chmod(0o1777)
        steps = [
            ("private", FIRST, ["sweep", "name=one", *QUICK]),
            *(("private", SECOND, words) for words in OTHERS),
            ("shared", FIRST, ["sweep", "name=one", f"shared_group={GROUP}", *QUICK]),
            ("shared", SECOND, ["extend", "one", "1"]),
            ("shared", FIRST, ["extend", "one", "1"]),
            ("shared", STRANGER, ["show", "one"]),
            ("shared", FIRST, ["sweep", "name=three", "shared_group=nogroup"]),
        ]
        yield place, done_by(place, steps)


@pytest.mark.slow
def test_a_home_is_its_owners_alone_and_others_get_one_line(homes: tuple[Path, list[Done]]) -> None:
    place, (began, *refused) = homes[0], homes[1][: 1 + len(OTHERS)]
    assert began.code == 0, began
    found = modes_in(place / "private")
    assert {"one/ledger.jsonl", "mlflow.db", "one/optuna.db"} <= found.keys(), found
    assert {mode for mode, _ in found.values()} == {"drwx------", "-rw-------"}, found
    assert all(one.refused and FIRST in one.err and "shared_group=GROUP" in one.err for one in refused), refused


@pytest.mark.slow
def test_two_users_of_a_group_share_a_home_and_resume_each_others_sweeps(homes: tuple[Path, list[Done]]) -> None:
    began, other, again, foreign, mine = homes[1][1 + len(OTHERS) :]
    assert [one.code for one in (began, other, again)] == [0] * 3, (began, other, again)
    assert "2 finished" in other.out and "3 finished" in again.out, (other, again)
    found = modes_in(homes[0] / "shared")
    assert {"one/ledger.jsonl", "mlflow.db", "one/optuna.db"} <= found.keys(), found
    assert {mode for mode, _ in found.values()} == {"drwxrws---", "-rw-rw----"}, found
    assert {number for _, number in found.values()} == {grp.getgrnam(GROUP).gr_gid}, found
    assert foreign.refused and FIRST in foreign.err, foreign
    assert mine.refused and f"shared with the group {GROUP}" in mine.err, mine


@pytest.fixture
def mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("shared", "file", "folder"), [(False, 0o600, 0o700), (True, 0o660, 0o2770)])
def test_the_homes_own_mode_decides(shared: bool, file: int, folder: int, tmp_path: Path, mask: None) -> None:
    home, group_name = tmp_path / "home", modes.groups()[0]
    home.mkdir(0o700)
    with modes.following(home):
        if shared:
            modes.share(home, group_name)
        with replaced_folder(home / "sweep" / "store") as new:
            (new / "by-a-library").touch(0o600)
        with replaced(home / "state.json") as new:
            new.write_text("{}", encoding="utf-8")
    files = [home / "sweep" / "store" / "by-a-library", home / "state.json"]
    assert [mode_of(path) for path in files] == [file, file]
    assert [mode_of(path) for path in (home, home / "sweep", home / "sweep" / "store")] == [folder] * 3
    with modes.following(home, tmp_path / "elsewhere"):
        (tmp_path / "elsewhere").touch()
    (tmp_path / "after").touch()
    assert [mode_of(tmp_path / name) for name in ("elsewhere", "after")] == [0o666 & ~modes._USERS_OWN, 0o644]


def test_what_was_private_is_not_shared_by_a_word(tmp_path: Path, mask: None) -> None:
    home = tmp_path / "home"
    home.mkdir(0o700)
    (home / "ledger").touch(0o600)
    with pytest.raises(ValueError, match=r"its owner's alone; .*chgrp -R"):
        modes.share(home, modes.groups()[0])
    assert mode_of(home) == 0o700 and mode_of(home / "ledger") == 0o600


def test_each_user_has_a_ray_and_a_token_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    assert local_ray._own(".ray_token") == tmp_path / ".ray_token"
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert local_ray._own(".ray_token") == tmp_path / f".ray_token-{os.geteuid()}"
