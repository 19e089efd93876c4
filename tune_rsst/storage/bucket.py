"""A sweep whose home is a bucket: how it comes to an empty home, and what the driver keeps there.

docs/storage.md, "A bucket: S3, Google, Azure", lists what is there. In: its address. Out: the home as a working copy of
it, which may be gone at any time; the driver's lease, ledger (ledger_objects.py) and files there. Workers put their
trials there themselves (trainables/worker/trial_mirror.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainables.rsst.config import ConfigError
from trainables.storage.bucket import FILES, Bucket, Missing, StorageError
from trainables.storage.clouds import KEYS
from trainables.storage.files import replaced
from trainables.storage.lease import Lease, LeaseHeld
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.lock import SweepBusy, is_running
from tune_rsst.storage import home
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.storage.ledger_objects import LedgerObjects, bring_ledger, write_whole

PUSHED = ("settings.yaml", "code", "weights", "best_model", "best.yaml")  # in this order: best.yaml commits the model


@contextmanager
def _can_be(what: str, address: str, hint: str = "") -> Iterator[None]:
    """A storage that fails within is a ConfigError: `address` is no bucket that can be `what`."""
    try:
        yield
    except StorageError as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise ConfigError("storage", address, f"a bucket that can be {what}", f"{reason}{hint}") from None


def check(address: str | None) -> None:
    """Check that a sweep can be kept at `address`; None is the home alone."""
    if address is not None:
        bucket = Bucket(address)
        with _can_be("written", address, f"; {KEYS[bucket.place.kind]} (docs/storage.md)"):
            bucket.check()


def holds(address: str | None, name: str) -> bool:
    """Whether a sweep `name` is at `address`."""
    return address is not None and bool(Bucket(address).below(name).keys("ledger/"))


def bring(address: str, name: str | None, say: Callable[[str], None]) -> list[SweepFolder]:
    """Bring the sweep `name`, or all, from `address` into the home: ledger, settings, weights, best model.

    A sweep that a driver is running in this home is left alone.
    """
    with _can_be("read", address):
        bucket = Bucket(address)
        names = [name] if name else bucket.folders()
        folders = [SweepFolder(_inside(home.home(), one, address)) for one in names]
        return [folder for folder in folders if _bring(bucket.below(folder.name), folder, say)]


def _bring(bucket: Bucket, folder: SweepFolder, say: Callable[[str], None]) -> bool:
    if is_running(folder.path):
        return True
    if news := bring_ledger(bucket, folder.ledger, time.strftime("%Y%m%d-%H%M%S")):
        say(news)
    if not folder.ledger.exists():
        return False
    keys = bucket.keys(f"{FILES}/")
    paths = [_inside(folder.path, key.removeprefix(f"{FILES}/"), bucket.address) for key in keys]
    for key, path in zip(keys, paths, strict=True):
        if not path.exists() or path.parent == folder.path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Missing), replaced(path) as new:  # a folder's object; or it has just been removed
                bucket.download(key, new)
    return True


def _inside(folder: Path, name: str, address: str) -> Path:
    """`folder`/`name`. A name from the bucket that leads out of `folder` is refused."""
    path, top = folder / name, folder.resolve()
    if top not in path.resolve().parents:
        raise ConfigError("storage", address, f"a place where no name leads out of {folder}", f"refused: {name}")
    return path


def fetch_model(folder: SweepFolder, address: str | None, fingerprint: str, *, rounds: bool = False) -> None:
    """Bring a finished trial's model and report into its store, unless they are there already; or models of `rounds`.

    Raises:
        OSError: the bucket can't be read.
    """
    store = _inside(folder.trials, fingerprint, str(address))
    if address is None or ((store / "report.json").exists() and not rounds):
        return
    from trainables.worker.trial_mirror import TrialMirror

    try:
        mirror = TrialMirror(Bucket(f"{address}/{folder.name}/trials"), store, lambda line: None)
        (mirror.fetch_rounds if rounds else mirror.fetch_results)()
    except StorageError as error:
        raise OSError(str(error)) from None


def ledger_bytes(address: str, name: str) -> bytes:
    """All that the bucket has of the ledger of the sweep `name`, in the order of its objects, whatever is missing."""
    with _can_be("read", address):
        found = Bucket(address).below(name)
        return b"".join(found.read(key) or b"" for key in found.keys("ledger/"))


def replace_ledger(address: str, folder: SweepFolder) -> None:
    """Put the ledger in `folder` in place of what the bucket has of it. Hold the sweep."""
    with _can_be("written", address):
        write_whole(Bucket(address).below(folder.name), folder.ledger)


class SweepStorage:
    """What a driver keeps of its sweep at `address`, while it holds the lease; follows the driver's ledger."""

    def __init__(self, address: str, folder: SweepFolder, interruption: Interruption) -> None:
        self.address = f"{address.rstrip('/')}/{folder.name}"
        self._folder, self._bucket = folder, Bucket(self.address)
        self._ledger = LedgerObjects(folder.ledger, self._bucket, interruption)
        self._sent: dict[str, tuple[int, int]] = {}

    def start(self) -> None:
        """Begin to write the ledger there, then the files; raises StorageError."""
        self._ledger.start()
        self.push_files()

    def notify(self, hurry: bool = False) -> None:
        """The ledger has grown; `hurry` as in `LedgerObjects.notify`. Returns at once."""
        self._ledger.notify(hurry)

    def close(self, timeout_s: float) -> str | None:
        """Write what is left; what is missing in the end, in one line, or None."""
        problem = self._ledger.close(timeout_s)
        with suppress(OSError):
            try:
                self.push_files()
            except StorageError as error:
                problem = problem or str(error)
        return problem

    def push_files(self) -> None:
        """Upload those of PUSHED that are there and have changed."""
        for name in PUSHED:
            top = self._folder.path / name
            for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
                if path.is_file() and not path.name.startswith("."):
                    key, stat = str(path.relative_to(self._folder.path)), path.stat()
                    mark = stat.st_mtime_ns, stat.st_size
                    if self._sent.get(key) != mark:
                        self._bucket.upload(path, f"{FILES}/{key}")
                        self._sent[key] = mark


@contextmanager
def held(
    address: str | None, folder: SweepFolder, say: Callable[[str], None], interruption: Interruption
) -> Iterator[SweepStorage | None]:
    """The lease of the sweep in `folder`, and its storage; None without a bucket. Hold the folder's lock.

    `interruption` hears when another driver takes the sweep over.
    """
    if address is None:
        yield None
        return
    storage = SweepStorage(address, folder, interruption)
    lease = Lease(Bucket(storage.address), folder.path, interruption.taken_over)
    try:
        with _can_be("written", address):
            lease.acquire(say)
    except LeaseHeld as held_by:
        raise SweepBusy(f"name = {folder.name}: {held_by}; wait for it, or stop it") from None
    try:
        yield storage
    finally:
        lease.release()
