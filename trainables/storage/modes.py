"""Who may read and write what lies in a home: its owner alone, or one group. The one place that decides it.

In: a home. Out: this process's umask, which those that it starts inherit: Ray, pictures, MLflow's own writing.

A home of one user is 0700, what is in it 0600 and 0700. A home that a group shares says so by its own mode, 2770
(setgid: what is made in it belongs to the group): what is in it is then 0660 and 2770, whoever of the group writes.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE, GROUP = 0o077, 0o007  # what the umask takes away
SHARED_HOME = 0o2770
_USERS_OWN = os.umask(PRIVATE)  # it can be read only by setting it
os.umask(_USERS_OWN)


def is_shared(home: Path) -> bool:
    """Whether the home is there, and one that a group shares."""
    try:
        mode = home.stat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and mode & SHARED_HOME == SHARED_HOME


def follow(home: Path) -> None:
    """From now on this process writes as the home has it."""
    os.umask(GROUP if is_shared(home) else PRIVATE)


@contextmanager
def following(home: Path, target: Path | None = None) -> Iterator[None]:
    """Within, this process writes as the home has it; what goes to a `target` outside it, as the user's umask says."""
    inside = target is None or home.resolve() in (target.resolve(), *target.resolve().parents)
    before = os.umask(PRIVATE if inside else _USERS_OWN)
    try:
        if inside:
            follow(home)
        yield
    finally:
        os.umask(before)


def share(home: Path, group: str) -> None:
    """Make a home that `group` shares; one that is there already, and shared or empty, is made so too.

    Raises:
        OSError: it can't be.
        ValueError: what is in it is not the group's yet, or it is another group's.
    """
    number = grp.getgrnam(group).gr_gid
    if is_shared(home) and home.stat().st_gid == number:
        return
    if is_shared(home):
        raise ValueError(f"{home} is shared with the group {name_of_group(home.stat().st_gid)}")
    if home.is_dir() and any(home.iterdir()):
        steps = f"chgrp -R {group} . && chmod -R u+rwX,g+rwX,o= . && find . -type d -exec chmod g+s {{}} +"
        raise ValueError(f"{home} holds files that are its owner's alone; to share them: cd there, {steps}")
    own = os.umask(_USERS_OWN)  # for its parents
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
        os.chown(home, -1, number)
        home.chmod(SHARED_HOME)
        own = GROUP
    finally:
        os.umask(own)


def settle(path: Path) -> None:
    """Give the group its part of a new file that a library made for its owner alone, where its folder is shared."""
    mode, folder = path.stat().st_mode, path.parent.stat().st_mode
    wanted = mode | (mode & 0o600) >> 3
    if stat.S_ISREG(mode) and folder & SHARED_HOME == SHARED_HOME and wanted != mode:
        path.chmod(stat.S_IMODE(wanted))


def make_database(file: Path) -> None:
    """An empty file for sqlite, which would make one that only its owner can write to."""
    if not os.path.lexists(file):
        file.touch()


def groups() -> list[str]:
    """Names of the groups that this user can share with: root with any."""
    known = {group.gr_gid: group.gr_name for group in grp.getgrall()}
    mine = known if os.geteuid() == 0 else {os.getegid(), *os.getgroups()}
    return sorted(known[number] for number in mine if number in known)


def owner_of(path: Path) -> str:
    """Who owns the first of `path` and its parents that can be looked at."""
    for place in (path, *path.parents):
        try:
            number = place.stat().st_uid
        except OSError:
            continue
        try:
            return pwd.getpwuid(number).pw_name
        except KeyError:
            return str(number)
    return "another user"


def name_of_group(number: int) -> str:
    """Its name, or its number where it has none here."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
