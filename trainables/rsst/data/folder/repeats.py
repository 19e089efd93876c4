"""The same image in two places: equal bytes within a class, in two classes, in two parts.

In: a listing and the digest of each of its files. Out: the listing without what would count twice, and remarks; or a
refusal, because an image that is trained on says nothing when it is tested on.

| equal bytes | what happens | with allow_duplicates |
|---|---|---|
| in one class of one part | taken once | all are taken |
| in two classes of one part | all are taken | all are taken |
| in two parts | refused | all are taken |

Whatever is not refused is remarked on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trainables.rsst.config import ConfigError
from trainables.rsst.data.folder.layout import Listing
from trainables.rsst.data.folder.remarks import Remarks


def without_repeats(found: Listing, digest_of: Mapping[Path, str], *, allow: bool) -> Listing:
    """`found` with each image once, as far as that can be decided."""
    remarks = Remarks(found.root)
    files: dict[str, list[tuple[Path, int]]] = {part: [] for part in found.files}
    earlier: dict[str, list[tuple[str, int, Path]]] = defaultdict(list)
    leaks: list[tuple[Path, Path]] = []
    for part, listed in found.files.items():
        for path, label in listed:
            same = earlier[digest_of[path]]
            here = [one for one in same if one[0] == part]
            if any(one[1] == label for one in here):
                remarks.add(f"images that are there twice in one class, {'kept' if allow else 'taken once'}", path)
                if not allow:
                    continue
            elif here:
                remarks.add("images that are there twice in two classes, kept in both", path)
            leaks += [(path, one[2]) for one in same if one[0] != part][:1]
            same.append((part, label, path))
            files[part].append((path, label))
    if leaks and not allow:
        first, original = map(remarks.inside, leaks[0])
        valid = "a folder with no image in two of train, val and test"
        hint = f"{len(leaks):,} images are there twice, the first is {first}, the same as {original}"
        raise ConfigError("data", found.root, valid, f"{hint}: remove them, or allow_duplicates=true")
    for copy, _ in leaks:
        remarks.add("images that are there twice in two parts, kept in both (allow_duplicates)", copy)
    return replace(found, files=files, notes=(*found.notes, *remarks.lines()))
