"""The store against what disks and kills do: flipped bits, cut files, half-written folders, a full disk, two users."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.rsst.state import TrialState
from trainables.rsst.store import checkpoint, reading
from trainables.rsst.store.checkpoint import CheckpointStore, StoreBusy


def state(number: int, fingerprint: str = "f" * 16) -> TrialState:
    """The state after event `number`: one epoch a round, so events alternate between epoch and round."""
    meta = {
        "fingerprint": fingerprint,
        "round": number // 2,
        "epoch": number % 2,
        "history": [{"kind": "epoch"}] * number,
        "share": 0.1 + 0.2,
    }
    tensors = {"weights/a": torch.full((3, 2), float(number)), "dead/b": torch.tensor([True, False])}
    return TrialState(meta, tensors)


class Store:
    """A store and what it said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []

    def open(self) -> CheckpointStore:
        return CheckpointStore(self.root, "f" * 16, self.said.append)

    def save(self, *numbers: int) -> list[Path]:
        return [self.open().save(state(n)) for n in numbers]

    def newest(self) -> int | None:
        """The number of the event that the newest whole checkpoint stands after."""
        found = self.open().newest()
        return len(found.meta["history"]) if found else None

    def kept(self) -> list[int]:
        return sorted(
            int(path.name.rpartition("-n")[2]) for path in (self.root / ("f" * 16)).glob("r*-n*") if path.is_dir()
        )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_what_is_saved_comes_back_bit_for_bit(store: Store) -> None:
    store.save(3)
    found = store.open().newest()
    assert found is not None and found.meta == state(3).meta
    assert found.round == 1 and found.epoch == 1
    for name, tensor in state(3).tensors.items():
        assert found.tensors[name].equal(tensor) and found.tensors[name].dtype == tensor.dtype


def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert store.newest() is None and store.said == []


def test_the_last_two_are_kept(store: Store) -> None:
    store.save(*range(1, 7))
    assert store.kept() == [5, 6] and store.newest() == 6
    store.save(99, 100, 101)  # 51 rounds: order is by number, not by text
    assert store.kept() == [100, 101] and store.newest() == 101


def test_only_json_and_safetensors_lie_there(store: Store) -> None:
    (folder,) = store.save(1)
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert json.loads((folder / "state.json").read_text())["share"] == 0.1 + 0.2


FILES = ("manifest.json", "state.json", "tensors.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_noticed_told_and_the_one_before_is_taken(tmp_path: Path, name: str) -> None:
    """Every 61st bit; all bits of the manifest, which no hash covers, were tried once."""
    bits = Store(tmp_path / "size").save(2)[0].joinpath(name).stat().st_size * 8
    for bit in range(0, bits, 61):
        store = Store(tmp_path / f"{bit}")
        _, newer = store.save(1, 2)
        content = bytearray((newer / name).read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        (newer / name).write_bytes(content)
        assert store.newest() == 1, bit
        assert len(store.said) == 1 and newer.name in store.said[0] and "damaged" in store.said[0]
        assert "\n" not in store.said[0]


def truncate(folder: Path) -> None:
    with (folder / "tensors.safetensors").open("r+b") as file:
        file.truncate(40)


def empty(folder: Path) -> None:
    (folder / "state.json").write_bytes(b"")


def without(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()

    return damage


def swapped(folder: Path) -> None:
    """A whole checkpoint of another trial."""
    other = CheckpointStore(folder.parent.parent, "0" * 16, print).save(state(2, "0" * 16))
    for name in FILES:
        (folder / name).write_bytes((other / name).read_bytes())


DAMAGES = [truncate, empty, without("manifest.json"), without("state.json"), without("tensors.safetensors"), swapped]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    store: Store, damage: Callable[[Path], None]
) -> None:
    _, newer = store.save(1, 2)
    damage(newer)
    assert store.newest() == 1
    assert len(store.said) == 1 and newer.name in store.said[0]


def test_an_error_that_says_nothing_about_the_file_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good checkpoint must not be put aside, and rounds trained again, because file handles ran out for a moment."""
    store.save(1, 2)

    def none_left(_: Path) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(reading, "sha256_of", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        store.newest()
    monkeypatch.undo()
    assert store.newest() == 2 and store.said == []


def test_damaged_ones_never_push_out_whole_ones(store: Store) -> None:
    """Both are damaged; the trial begins anew, and what it saves then is kept although its numbers are lower."""
    for folder in store.save(7, 8):
        truncate(folder)
    assert store.newest() is None and len(store.said) == 2
    store.save(1)
    assert store.newest() == 1
    store.save(2, 3)
    assert store.newest() == 3 and store.kept() == [2, 3]


def test_after_a_fall_back_two_whole_ones_are_kept_again(store: Store) -> None:
    _, newer = store.save(4, 6)
    truncate(newer)
    opened = store.open()
    assert len(opened.newest().meta["history"]) == 4  # type: ignore[union-attr]
    opened.save(state(5))
    assert store.kept() == [4, 5] and store.newest() == 5


def test_a_half_written_folder_is_no_checkpoint_and_goes_away(store: Store) -> None:
    (whole,) = store.save(1)
    orphan = whole.with_name(".r001-e000-n00002.4711.tmp")
    orphan.mkdir()
    (orphan / "tensors.safetensors").write_bytes(b"half")
    opened = store.open()
    with opened.locked():
        assert not orphan.exists()
        assert len(opened.newest().meta["history"]) == 1  # type: ignore[union-attr]
    assert store.said == []


@pytest.mark.parametrize("at", ["save_file", "write_json", "fsync"])
def test_a_full_disk_leaves_the_older_ones_whole(store: Store, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    store.save(1, 2)

    def full(*arguments: Any) -> None:
        if at == "save_file":
            Path(arguments[1]).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if at == "fsync" else checkpoint, at, full)
    with pytest.raises(OSError, match="No space left"):
        store.save(3)
    monkeypatch.undo()
    assert store.newest() == 2 and store.kept() == [1, 2]
    assert [p.name for p in (store.root / ("f" * 16)).iterdir() if p.name.startswith(".")] == []


def test_no_nan_gets_into_a_checkpoint(store: Store) -> None:
    store.save(1)
    bad = TrialState({**state(2).meta, "share": float("nan")}, state(2).tensors)
    with pytest.raises(ValueError):
        store.open().save(bad)
    assert store.newest() == 1


def killed_at(root: Path, call: int) -> None:
    """Save state 3 and die without a word at the `call`-th look of Python's audit hook at a file or folder."""
    calls = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        touches = event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
        if touches and str(root) in str(arguments[0]):
            calls += 1
            if calls == call:
                os._exit(9)

    store = Store(root).open()
    sys.addaudithook(watch)
    store.save(state(3))
    os._exit(0)


def test_a_kill_at_any_moment_of_a_save_loses_nothing(tmp_path: Path) -> None:
    """The process dies before each file operation of a save: the newest is then 2 or 3, and the next save works."""
    context = multiprocessing.get_context("fork")
    newest, call, code = [], 0, 9
    while code == 9:
        call += 1
        store = Store(tmp_path / str(call))
        store.save(1, 2)
        process = context.Process(target=killed_at, args=(store.root, call))
        process.start()
        process.join(60)
        code = process.exitcode or 0
        with store.open().locked():
            newest.append(store.newest())
            assert store.said == []
            store.save(4)
        assert store.newest() == 4 and len(store.kept()) == 2
        assert not [p for p in (store.root / ("f" * 16)).iterdir() if p.name.endswith(".tmp")]
    assert newest == sorted(newest) and set(newest) == {2, 3} and len(newest) > 8


def test_a_second_opener_is_told_that_the_store_is_busy(store: Store) -> None:
    with store.open().locked(), pytest.raises(StoreBusy, match="in use by another process"), store.open().locked(0.3):
        pass
    with store.open().locked():
        pass


def hold(root: Path, ready: Any) -> None:
    with Store(root).open().locked():
        ready.set()
        signal.pause()


def test_a_killed_holder_frees_the_lock(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(store.root, ready))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(StoreBusy), store.open().locked():
        pass
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join(30)
    with store.open().locked(5.0):
        pass
