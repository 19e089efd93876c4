"""Which files an image folder holds, and under which part and class.

In: its path. Out: a `Listing`; class numbers are those of the sorted class names of train/ (or of the whole folder).

PATH/<class>/**/<image>          one folder: split later, by seed
PATH/train/<class>/**/<image>    given parts: train/, and val/ or test/ where there are such, in any usual spelling
                                 (`part_of`); what is missing is split off train later, by seed

The parts are given where train/ holds folders; a class may be called train. What has no place in a layout is named in
`notes`, hidden names are passed over, and what could be read in two ways is refused. In a part each real file counts
once: where it lies if that is in a class folder, else where the first link to it is. Links may lead out of the folder,
never to one above it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from trainables.rsst.config import ConfigError
from trainables.rsst.data.folder.pixels import is_grey, suffixes, unreadable_suffixes
from trainables.rsst.data.folder.remarks import Remarks
from trainables.storage.files import is_folder
from trainables.text import shown

SPELLINGS = {
    "train": ("train", "training", "trn", "tr"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "te"),
}
DEEPEST, MOST_FOLDERS = 20, 100_000
NO_PLACE = ("/proc", "/sys", "/dev")  # what lies there is no file, and has no end
NEVERTHELESS = "/dev/shm"
TWICE_BY_LINK = "files that a link reaches a second time, taken once and not twice"
LINK_ABOVE = "links to a folder above, not followed, as its images would be there twice"
LEADS_NOWHERE = "links that lead nowhere, so that what they name is missing"


@dataclass(frozen=True)
class Listing:
    """The files of an image folder: per part, (path, class number) in a fixed order. One part `all`: not yet split."""

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[Path, int]]]
    in_chans: int
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What people call it."""
        return shown(self.root.resolve().name) or "folder"


def part_of(name: str) -> str | None:
    """The part that a folder of this name holds, whatever its case: Train, valid, test_set, dev-images, 01_training."""
    word = re.sub(r"(data|sets?|split|images?|imgs?)+$", "", re.sub(r"[\W\d_]", "", name.lower()))
    return next((part for part, spellings in SPELLINGS.items() if word in spellings), None)


def listing(data: str | None) -> Listing:
    """What lies in the folder; opens one image per class."""
    root = Path(data or "")
    if not data or not is_folder(data):
        raise ConfigError("data", data, "an existing folder with one subfolder per class", "give data=PATH")
    if _of_the_system(os.path.realpath(root)):
        raise ConfigError("data", data, "a folder of files", "this one is made up by the operating system")
    remarks = Remarks(root)
    parts = _parts(root, remarks)
    first = next(iter(parts))
    classes = _classes(root, first, parts[first])
    found: list[_File] = []
    for part, folders in parts.items():
        found += _files_of(root, part, folders, classes, remarks)
    kept = _each_once(found, remarks)
    files = {part: [(file.path, file.label) for file in kept if file.part == part] for part in parts}
    firsts = {label: path for path, label in reversed(files[first])}
    for label, name in enumerate(classes):
        if label not in firsts:
            where = next(folder for folder in parts[first] if folder.name == name)
            hint = "there is none, or it is taken elsewhere; images end in .png, .jpg, .tif and the like"
            raise ConfigError("data", shown(where), "a class folder with images", hint)
    grey = all(is_grey(path) for path in firsts.values())
    return Listing(root, classes, files, 1 if grey else 3, remarks.lines())


def _of_the_system(real: str) -> bool:
    inside = any(f"{real}/".startswith(f"{place}/") for place in NO_PLACE)
    return inside and not f"{real}/".startswith(f"{NEVERTHELESS}/")


def _parts(root: Path, remarks: Remarks) -> dict[str, list[Path]]:
    """The class folders of each part that is given; or of one part `all`."""
    folders = _folders(root, remarks)
    spelled: dict[str, list[Path]] = {part: [f for f in folders if part_of(f.name) == part] for part in SPELLINGS}
    named = [folder for of_part in spelled.values() for folder in of_part]
    if not any(_folders(folder) for folder in spelled["train"]):
        if named and len(named) == len(folders):
            hint = f"there is {', '.join(shown(f.name) + '/' for f in named)}"
            raise ConfigError("data", shown(root), "a folder whose train/ has one folder per class", hint)
        for folder in named:
            remarks.add("taken as a class in spite of its name, as there is no train/ with class folders", folder)
        return {"all": folders}
    parts = {}
    for part, of_part in spelled.items():
        if len(of_part) > 1:
            both = " and ".join(shown(folder.name) + "/" for folder in of_part)
            raise ConfigError("data", shown(root), f"a folder with one {part} part", f"{both} mean the same: keep one")
        for folder in of_part:
            parts[part] = _folders(folder, remarks)
            if not parts[part]:
                hint = f"it has none; move its images into them, or rename it to split {part} off train"
                raise ConfigError("data", shown(folder), f"a {part} part with class folders", hint)
    for folder in folders:
        if folder not in named:
            remarks.add("folders beside train/ that are no part, left out", folder)
    return parts


def _classes(root: Path, part: str, folders: list[Path]) -> tuple[str, ...]:
    """The class names, sorted."""
    names = sorted(folder.name for folder in folders)
    if len(names) < 2:
        found = f"class {shown(names[0])} alone" if names else "no class folder"
        valid = "a folder with at least two class folders (PATH/CLASS/*.png or PATH/train/CLASS/*.png)"
        if part == "all" and names and len(_folders(folders[0])) > 1:
            found += f"; did you mean data={shown(folders[0])}?"
        raise ConfigError("data", shown(root), valid, f"there is {found}")
    for folder in folders:
        if not folder.name.isprintable():
            raise ConfigError("data", shown(folder), "a class folder with a name in UTF-8, in one line", "rename it")
        if parted := [inner for inner in _folders(folder) if part_of(inner.name) == "train"]:
            hint = "the parts stand above the classes: PATH/train/CLASS, PATH/test/CLASS"
            raise ConfigError("data", shown(parted[0]), "a class folder without parts in it", hint)
    return tuple(names)


def _folders(folder: Path, remarks: Remarks | None = None) -> list[Path]:
    """The folders right in `folder` that are not hidden, sorted by name; what else is there is remarked on."""
    found = []
    for entry in _entries(folder):
        path = folder / entry.name
        if os.path.isdir(path):
            if not entry.name.startswith("__"):
                found.append(path)
        elif remarks is not None:
            lost = entry.is_symlink() and not os.path.exists(path)
            remarks.add(LEADS_NOWHERE if lost else "files in no class folder, left out", path)
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in `folder`, hidden names left out, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError("data", shown(folder), "a folder that can be read", error.strerror or str(error)) from None


@dataclass(frozen=True)
class _File:
    """An image file: where it was found, where it really lies, whether a link is between the two."""

    path: Path
    real: str
    linked: bool
    part: str
    label: int


def _files_of(
    root: Path, part: str, folders: list[Path], classes: tuple[str, ...], remarks: Remarks
) -> Iterator[_File]:
    """The image files of one part, by class."""
    by_name = {folder.name: folder for folder in folders}
    for name, folder in by_name.items():
        if name not in classes:
            like = get_close_matches(name.lower(), [one.lower() for one in classes], n=1, cutoff=0.8)
            meant = [one for one in classes if one.lower() in like]
            hint = f"did you mean {meant[0]}?" if meant else ""
            raise ConfigError("data", shown(folder), f"a class of train/ ({', '.join(classes[:5])} …)", hint)
    entered = 0
    for label, name in enumerate(classes):
        walk = _Walk(os.path.realpath(root), remarks, entered)
        images = list(walk.files(by_name[name], os.path.relpath(by_name[name], root))) if name in by_name else []
        entered += len(walk.visited)
        yield from (_File(path, real, linked, part, label) for path, real, linked in images)
        if not images and part in ("val", "test"):
            remarks.add(f"classes missing in {part}/", name)


@dataclass
class _Walk:
    """A walk below a class folder: each real folder once, none above `root`. `before`: folders of other classes."""

    root: str
    remarks: Remarks
    before: int = 0
    visited: set[str] = field(default_factory=set)

    def files(self, folder: Path, inside: str) -> Iterator[tuple[Path, str, bool]]:
        """The image files below `folder`, which is `inside` the root: those right in it first, all sorted by name.

        Yields path, real path, and whether a link is on the way.
        """
        real = os.path.realpath(folder)
        yield from self._below(folder, real, real != os.path.join(self.root, inside), 0)

    def _below(self, folder: Path, real: str, linked: bool, depth: int) -> Iterator[tuple[Path, str, bool]]:
        if not self._may_enter(folder, real, depth):
            return
        inner = []
        for entry in _entries(folder):
            path, link = folder / entry.name, entry.is_symlink()
            found = path, os.path.realpath(path) if link else os.path.join(real, entry.name), linked or link
            if link and not os.path.exists(path):
                self.remarks.add(LEADS_NOWHERE, path)
            elif os.path.isdir(path):
                inner.append(found)
            elif self._is_image(path):
                if depth:
                    self.remarks.add("images in folders below a class folder, taken with the class", path)
                yield found
        for path, real_path, by_link in inner:
            if not path.name.startswith("__"):
                yield from self._below(path, real_path, by_link, depth + 1)

    def _may_enter(self, folder: Path, real: str, depth: int) -> bool:
        if self.root == real or self.root.startswith(os.path.join(real, "")):
            self.remarks.add(LINK_ABOVE, folder)
            return False
        if _of_the_system(real):
            self.remarks.add("links to folders of the operating system, not followed", folder)
            return False
        if real in self.visited:
            self.remarks.add("folders that a link reaches a second time, taken once and not twice", folder)
            return False
        self.visited.add(real)
        if depth > DEEPEST or self.before + len(self.visited) > MOST_FOLDERS:
            valid = f"a class folder with at most {DEEPEST} folders in each other, {MOST_FOLDERS:,} in all"
            raise ConfigError("data", shown(folder), valid, "does a link lead to a place that is not meant?")
        return True

    def _is_image(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if suffix in unreadable_suffixes():
            hint = "convert it to PNG or JPEG, or take it out of the folder"
            raise ConfigError("data", shown(path), f"an image that is read here ({suffix} is not)", hint)
        if suffix not in suffixes():
            self.remarks.add("files that are no images by their names, left out", path)
            return False
        if not os.path.isfile(path):
            self.remarks.add("named like images but no files (pipes, sockets, devices), left out", path)
            return False
        return True


def _each_once(found: list[_File], remarks: Remarks) -> list[_File]:
    """`found` without the files that a link reaches although they lie in a class folder of its part, or again.

    What two parts share stays: repeats.py decides about it.
    """
    owners = {(file.real, file.part) for file in found if not file.linked}
    seen: set[tuple[str, str, int]] = set()
    kept = []
    for file in found:
        here = (file.real, file.part, file.label)
        if here in seen or (file.linked and here[:2] in owners):
            remarks.add(TWICE_BY_LINK, file.path)
            continue
        seen.add(here)
        kept.append(file)
    return kept
