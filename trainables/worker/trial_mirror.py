"""A trial's store in a bucket: checkpoints and results go there while the trial trains, and come back anywhere.

Comes in: the trial's store on this node's disk. Goes out: the same files below the bucket's `FINGERPRINT/`:
    r003-e012-n00055/0123456789abcdef-tensors.safetensors …  named by their content, so two writers never mix
    r003-e012-n00055/manifest.json                            written last: the checkpoint exists from here on
    results/…  results/manifest.json                          the model and the report, in the same way
Uploads run in a thread, newest checkpoint first; what was overtaken meanwhile is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from trainables.rsst.store.checkpoint import KEEP, checkpoint_names
from trainables.storage.bucket import FILES, Bucket, StorageError
from trainables.storage.files import sha256_of

MANIFEST, RESULTS = "manifest.json", "results"
LEFT_OUT = ("lock", MANIFEST)
SHA_DIGITS = 16
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0


class TrialMirror:
    """The mirror of one store; `say` gets a line for each checkpoint in the bucket that is not whole."""

    def __init__(self, bucket: Bucket, store: Path, say: Callable[[str], None]) -> None:
        self._bucket, self._store, self._say = bucket.below(store.name), store, say
        self._changed, self._asked, self._done = threading.Condition(), 0, 0
        self._closing = self._with_results = False
        self._thread: threading.Thread | None = None
        self._committed: set[str] = set()
        self.problem: str | None = None

    @property
    def address(self) -> str:
        """Where the trial's files go."""
        return self._bucket.address

    def fetch(self) -> None:
        """Bring the newest whole checkpoint here, where it is newer than what is here; the results too, if any.

        Raises:
            StorageError: the bucket can't be read. OSError: the disk can't be written.
        """
        keys = self._bucket.keys()
        there = {key.partition("/")[0] for key in keys if key.endswith(f"/{MANIFEST}")}
        self._committed = set(there)
        names = checkpoint_names(there)
        here = checkpoint_names(p.name for p in self._store.iterdir()) if self._store.is_dir() else []
        for name in names:
            if here and checkpoint_names([name, here[0]])[0] == here[0]:
                break
            if self._bring(name):
                break
        if RESULTS in there and not (self._store / "report.json").exists():
            self.fetch_results()

    def fetch_results(self) -> bool:
        """Bring the model and the report here; False where the bucket has none that are whole."""
        aside = self._download(RESULTS)
        if aside is None:
            return False
        for file in aside.iterdir():
            file.replace(self._store / file.name)
        aside.rmdir()
        return True

    def _bring(self, name: str) -> bool:
        aside = self._download(name)
        if aside is None:
            return False
        aside.rename(self._store / name)
        return True

    def _download(self, name: str) -> Path | None:
        """The set `name` in a folder under a temporary name; None where it is not whole: it may then be put anew."""
        text = self._bucket.read(f"{name}/{MANIFEST}")
        if text is None:
            self._committed.discard(name)
            return None
        self._store.mkdir(parents=True, exist_ok=True)
        aside = self._store / f".{name}.{os.getpid()}.fetch.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            for file, sha in _files_in(text).items():
                self._bucket.download(f"{name}/{sha[:SHA_DIGITS]}-{file}", aside / file)
                if sha256_of(aside / file) != sha:
                    raise ValueError(f"{file} has another sha256 than its manifest says")
            if name != RESULTS:
                (aside / MANIFEST).write_bytes(text)
        except (StorageError, ValueError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            if isinstance(error, StorageError) and "404" not in str(error) and "NoSuchKey" not in str(error):
                raise
            self._committed.discard(name)
            self._say(f"{name} in {self._bucket.address} is damaged ({error}); falling back to the one before it")
            return None
        return aside

    def wake(self) -> None:
        """There may be a new checkpoint. Returns at once."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trial-mirror", daemon=True)
            self._thread.start()

    def flush(self, timeout_s: float, *, results: bool) -> bool:
        """Wait until the newest checkpoint is in the bucket, and the `results`; False when `timeout_s` is over."""
        self._with_results = self._with_results or results
        self.wake()
        with self._changed:
            wanted = self._asked
            return self._changed.wait_for(lambda: self._done >= wanted, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Upload what is left, for `timeout_s` at most, and end the thread."""
        if self._thread is not None:
            self.flush(timeout_s, results=False)
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def _work(self) -> None:
        retry_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._asked > self._done)
                wanted = self._asked
                if self._closing:
                    return
            try:
                self._push()
            except (StorageError, OSError) as error:
                self.problem = str(error)
                retry_s = min(max(2 * retry_s, FIRST_RETRY_S), LAST_RETRY_S)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, retry_s)
                continue
            retry_s, self.problem = 0.0, None
            with self._changed:
                self._done = wanted
                self._changed.notify_all()

    def _push(self) -> None:
        while names := checkpoint_names(p.name for p in self._store.iterdir()):
            if names[0] in self._committed:
                break
            try:
                self._put(names[0], self._store / names[0])
            except FileNotFoundError:  # overtaken, and removed while it was read: a newer one is there already
                if (self._store / names[0]).exists():
                    raise
        self._forget_old()
        if self._with_results and RESULTS not in self._committed:
            self._put(RESULTS, self._store)

    def _put(self, name: str, folder: Path) -> None:
        files = [p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and p.name not in LEFT_OUT]
        manifest = {p.name: sha256_of(p) for p in sorted(files)}
        for file, sha in manifest.items():
            self._bucket.upload(folder / file, f"{name}/{sha[:SHA_DIGITS]}-{file}")
        self._bucket.write(f"{name}/{MANIFEST}", json.dumps(manifest).encode())
        self._committed.add(name)

    def _forget_old(self) -> None:
        for name in checkpoint_names(self._committed)[KEEP:]:
            keys = self._bucket.keys(f"{name}/")
            self._bucket.delete([key for key in keys if key.endswith(f"/{MANIFEST}")])  # first: from here on it is none
            self._bucket.delete(keys)
            self._committed.discard(name)


def _files_in(manifest: bytes) -> dict[str, str]:
    """sha256 by file name.

    Raises:
        ValueError: it is no manifest, or has a name that `_put` gives to none: one that leads out of the folder, say.
    """
    found = json.loads(manifest)
    if not isinstance(found, dict) or not all(isinstance(sha, str) for sha in found.values()):
        raise ValueError("its manifest is none")
    for file in found:
        if file != Path(file).name or not file or file[0] == "." or file in LEFT_OUT or "\0" in file:
            raise ValueError(f"its manifest names {file!r}, which is no file of a trial right in its folder")
    return found


def fetch_weights(bucket: Bucket, weights: str | None, sweep: Path) -> None:
    """Bring the sweep's own copy of pretrained weights to this node, where `weights` lies in its folder `sweep`."""
    path = Path(weights) if weights else None
    if path is None or path.parent.parent != sweep or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    bucket.download(f"{FILES}/{path.parent.name}/{path.name}", aside)
    aside.replace(path)
