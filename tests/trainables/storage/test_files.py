"""Replacing files and folders against kills, errors, a second writer: a reader finds the old or the new, never half."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from trainables.storage import files
from trainables.storage.files import (
    is_temporary,
    read_json,
    remove_folder,
    remove_leftovers,
    replace_json,
    replaced,
    replaced_folder,
    temporary_folder,
)

TIMES = 200
PARTS = ("a", "below/b", "c")
LEFT_BY_EARLIER_VERSIONS = (
    ".r001-e000-n00002.4711.tmp",
    ".r001-e000-n00002.4711.old.tmp",
    ".r001-e000-n00002.4711.fetch.tmp",
    ".report.json.4711.tmp",
    ".model.safetensors.tmp",
    ".model.tmp.pt2",
)
LEFT_BY_LIBRARIES = (".best.yaml.4711-0123456789ab.tmp.aB3dE6f8", ".tmpaB3dE6")
NO_LEFTOVERS = ("lock", ".mlflow.db.lock", "r001-e000-n00002", "damaged-r001", "model.tmp.pt2", ".gitignore", ".tmp")


def write_file(path: Path, text: str) -> None:
    """`text` many times over, in several writes."""
    with replaced(path) as new, new.open("w") as file:
        for _ in range(40):
            file.write(text * 500)
            file.flush()


def in_file(path: Path) -> str:
    """The one text that is there from the beginning to the end."""
    content = path.read_text()
    text = content[:3]
    assert content == text * 20_000, f"{len(content)} bytes"
    return text


def write_folder(path: Path, text: str) -> None:
    """Three files of one content."""
    with replaced_folder(path) as new:
        (new / "below").mkdir()
        for part in PARTS:
            (new / part).write_text(text)


def in_folder(path: Path) -> str:
    """The text in all files of the folder that had the name at one moment."""
    handle = os.open(path, os.O_RDONLY)
    try:
        parts = [os.open(part, os.O_RDONLY, dir_fd=handle) for part in PARTS]
        texts = {os.read(part, 100).decode() for part in parts}
        for part in parts:
            os.close(part)
    finally:
        os.close(handle)
    assert len(texts) == 1
    return texts.pop()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if is_temporary(path)]


def killed_at(call: int, write: Callable[[Path, str], None], path: Path) -> None:
    """Write, and be killed right before the `call`-th file operation below the path's folder, or flush."""
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        touches = event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir", "shutil.rmtree")
        if touches and str(path.parent) in str(arguments[0]):
            count()

    def fsync(handle: int, real: Callable[[int], None] = os.fsync) -> None:
        count()
        real(handle)

    os.fsync = fsync  # type: ignore[assignment]  # in a process of its own
    sys.addaudithook(watch)
    write(path, "new")
    os._exit(0)


def states_after_kills(tmp_path: Path, write: Callable[[Path, str], None], read: Callable[[Path], str]) -> list[str]:
    """What a reader finds after a kill at the first, second … operation, up to the write that nothing killed."""
    context = multiprocessing.get_context("fork")
    found, code = [], -signal.SIGKILL
    while code == -signal.SIGKILL:
        path = tmp_path / f"{len(found)}" / "it"
        path.parent.mkdir()
        write(path, "old")
        process = context.Process(target=killed_at, args=(len(found) + 1, write, path))
        process.start()
        process.join(60)
        code = process.exitcode
        found.append(read(path) if path.exists() else "none")
        remove_leftovers(path.parent)
        assert leftovers(path.parent) == []
        write(path, "aft")
        assert read(path) == "aft" and os.listdir(path.parent) == ["it"]
    assert code == 0
    return found


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    found = states_after_kills(tmp_path, write_file, in_file)
    assert found == sorted(found, key=["old", "new"].index) and set(found) == {"old", "new"} and len(found) >= 5


def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one_or_none(tmp_path: Path) -> None:
    found = states_after_kills(tmp_path, write_folder, in_folder)
    assert found == sorted(found, key=["old", "none", "new"].index) and {"old", "new"} <= set(found) and len(found) > 12
    assert found.count("none") <= 1, "the instant between two renames"


def keep_writing(write: Callable[[Path, str], None], path: Path, text: str) -> None:
    for _ in range(TIMES):
        write(path, text)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_processes_that_write_the_same_200_times_never_fail_and_a_reader_never_sees_half(
    tmp_path: Path, kind: str
) -> None:
    write, read = (write_file, in_file) if kind == "file" else (write_folder, in_folder)
    path = tmp_path / "it"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=keep_writing, args=(write, path, text)) for text in ("one", "two")]
    for writer in writers:
        writer.start()
    seen = []
    try:
        while any(writer.is_alive() for writer in writers):
            try:
                seen.append(read(path))
            except FileNotFoundError:  # not yet; or a folder, while it is being exchanged
                assert kind == "folder" or not seen
    finally:
        for writer in writers:
            writer.kill()
            writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(seen) > 20 and {*seen, read(path)} <= {"one", "two"}
    assert os.listdir(tmp_path) == ["it"]


def test_two_threads_of_one_process_never_meet(tmp_path: Path) -> None:
    failed = []

    def work(text: str) -> None:
        try:
            for _ in range(30):
                write_file(tmp_path / "it", text)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == [] and in_file(tmp_path / "it") in ("one", "two") and os.listdir(tmp_path) == ["it"]


@pytest.mark.parametrize(("write", "read"), [(write_file, in_file), (write_folder, in_folder)])
@pytest.mark.parametrize("at", ["fsync", "rename"])
def test_an_error_keeps_the_old_one_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, read: Any, at: str
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path / "it", "old")
    with monkeypatch.context() as broken:
        broken.setattr(*((os, "fsync") if at == "fsync" else (Path, "replace")), full)
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path / "it", "new")
    assert read(tmp_path / "it") == "old" and os.listdir(tmp_path) == ["it"]


def test_what_the_body_raises_goes_through(tmp_path: Path) -> None:
    replace_json(tmp_path / "it", [1])
    with pytest.raises(ValueError, match="JSON compliant"):
        replace_json(tmp_path / "it", [float("nan")])
    with suppress(KeyError), replaced_folder(tmp_path / "below" / "folder") as new:
        (new / "a").touch()
        raise KeyError
    assert read_json(tmp_path / "it") == [1] and sorted(os.listdir(tmp_path)) == ["below", "it"]
    assert os.listdir(tmp_path / "below") == []


def test_everything_in_a_folder_is_flushed_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []

    def fsync(handle: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{handle}").replace(str(tmp_path), ""))

    monkeypatch.setattr(os, "fsync", fsync)
    write_folder(tmp_path / "it", "new")
    *before, last = flushed
    assert last == "" and all(name.startswith("/.it.") for name in before)
    assert {name.partition(".tmp")[2] for name in before} == {"", "/below", *(f"/{part}" for part in PARTS)}


def test_a_temporary_folder_is_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "below" / "it") as new:
        (new / "a").touch()
        assert is_temporary(new) and new.parent == tmp_path / "below"
    assert os.listdir(tmp_path / "below") == []


def test_leftovers_of_this_and_earlier_versions_go_and_nothing_else(tmp_path: Path) -> None:
    for name in (*LEFT_BY_EARLIER_VERSIONS, *LEFT_BY_LIBRARIES):
        (tmp_path / name).mkdir() if "r001" in name else (tmp_path / name).touch()
    for name in NO_LEFTOVERS:
        (tmp_path / name).touch()
    (tmp_path / LEFT_BY_EARLIER_VERSIONS[0] / "tensors.safetensors").touch()
    remove_leftovers(tmp_path, "report.json")
    assert len(leftovers(tmp_path)) == len(LEFT_BY_EARLIER_VERSIONS) + len(LEFT_BY_LIBRARIES) - 1
    remove_leftovers(tmp_path, older_s=60)
    assert LEFT_BY_LIBRARIES[0] in leftovers(tmp_path)
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(NO_LEFTOVERS)


def test_the_next_writer_removes_an_old_leftover_of_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed at every write would fill the disk; one that is still writing loses nothing."""
    left = [tmp_path / name for name in (".it.4711-0.tmp", ".other.4711-0.tmp")]
    for path in left:
        path.touch()
    write_file(tmp_path / "it", "new")
    assert all(path.exists() for path in left)
    monkeypatch.setattr(files, "OLD_S", 0.0)
    write_file(tmp_path / "it", "new")
    assert sorted(os.listdir(tmp_path)) == [".other.4711-0.tmp", "it"]


def test_a_folder_is_renamed_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "it", "old")
    with monkeypatch.context() as killed:
        killed.setattr(files.shutil, "rmtree", lambda *_, **__: None)
        remove_folder(tmp_path / "it")
    assert not (tmp_path / "it").exists() and len(leftovers(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []
