"""A trial's store in a bucket: checkpoints and results go there while the trial trains, and come back anywhere.

In: the trial's store on this node's disk. Out: the same files below the bucket's `FINGERPRINT/`:
    r003-e012-n00055/0123456789abcdef-tensors.safetensors …  named by their content, so two writers never mix
    r003-e012-n00055/manifest.json                            written last: from then on the checkpoint exists
    models/r003-0123456789abcdef.safetensors                  models of rounds; put there before their checkpoint
    results/…  results/manifest.json                          the model and the report, in the same way
Uploads run in a thread, newest checkpoint first; what was overtaken meanwhile is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from trainables.rsst.rounds import MODELS, is_intact, is_model_of_a_round
from trainables.rsst.store.checkpoint import KEEP
from trainables.rsst.store.reading import CONTENT, MANIFEST, checkpoint_names
from trainables.storage.bucket import FILES, Bucket, Missing, StorageError
from trainables.storage.files import publish, replaced, sha256_of, temporary_folder
from trainables.storage.forms import NAME_OF_A_FILE, SHA256, WrongForm, mapping, text
from trainables.storage.retrying import RetryingThread
from trainables.storage.state_files import state_of

RESULTS, REPORT, MODEL = "results", "report.json", "model.safetensors"
FILES_OF_RESULTS = mapping(text(SHA256), keys=NAME_OF_A_FILE)
SMALL = 1 << 20  # bytes of a manifest, at most
LEFT_OUT = ("lock", MANIFEST)
SHA_DIGITS = 16
LAST_RETRY_S = 15.0


class TrialMirror:
    """The mirror of one store; `say` gets a line for each incomplete checkpoint in the bucket."""

    def __init__(self, bucket: Bucket, store: Path, say: Callable[[str], None]) -> None:
        self._bucket, self._store, self._say = bucket.below(store.name), store, say
        self._with_results = False
        self._committed: set[str] = set()
        self._rounds_there: set[str] | None = None
        self._thread = RetryingThread(self._push, name="trial-mirror", last_retry_s=LAST_RETRY_S)

    @property
    def address(self) -> str:
        """Where the trial's files go."""
        return self._bucket.address

    @property
    def problem(self) -> str | None:
        """What stopped the last upload; None where it went through."""
        return self._thread.problem

    def fetch(self) -> None:
        """Fetch the newest complete checkpoint where it is newer than the one here; the results too, if any.

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
        self.fetch_rounds()
        if RESULTS in there and not (self._store / REPORT).exists():
            self.fetch_results()

    def fetch_rounds(self) -> None:
        """Fetch the models of rounds that are not here; a damaged one is said and left out."""
        keys = self._bucket.keys(f"{MODELS}/")
        names = {name for key in keys if is_model_of_a_round(name := key.partition("/")[2])}
        self._rounds_there = names
        for name in sorted(names):
            path = self._store / MODELS / name
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(path.parent) as new:
                self._bucket.download(f"{MODELS}/{name}", new / name)
                if is_intact(new / name):
                    publish(new / name, path)
                else:
                    self._say(f"{MODELS}/{name} in {self._bucket.address} is damaged; the model of this round is lost")

    def fetch_results(self) -> bool:
        """Fetch the model and the report. False where the bucket has no complete ones."""
        return self._bring(RESULTS)

    def _bring(self, name: str) -> bool:
        """Bring the set `name` here; False where the bucket has no complete one, which may then be uploaded again."""
        manifest = self._bucket.read(f"{name}/{MANIFEST}", most=SMALL)
        if manifest is None:
            self._committed.discard(name)
            return False
        try:
            with temporary_folder(self._store / name) as new:
                for file, sha in _files_in(name, manifest).items():
                    self._bucket.download(f"{name}/{sha[:SHA_DIGITS]}-{file}", new / file)
                    if sha256_of(new / file) != sha:
                        raise ValueError(f"{file} has another sha256 than its manifest says")
                if name == RESULTS:
                    for path in sorted(new.iterdir(), key=lambda path: path.name == REPORT):  # last: all are here
                        publish(path, self._store / path.name)
                else:
                    (new / MANIFEST).write_bytes(manifest)
                    publish(new, self._store / name)
        except (StorageError, ValueError) as error:
            if isinstance(error, StorageError) and not isinstance(error, Missing):
                raise
            self._committed.discard(name)
            self._say(f"{name} in {self._bucket.address} is damaged ({error}); falling back to the one before it")
            return False
        return True

    def wake(self) -> None:
        """There may be a new checkpoint. Returns at once."""
        self._thread.start()

    def flush(self, timeout_s: float, *, results: bool) -> bool:
        """Wait until the newest checkpoint is in the bucket, and the `results`; False when `timeout_s` is over."""
        self._with_results = self._with_results or results
        self._thread.start()
        return self._thread.flush(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Upload what is left, for `timeout_s` at most, and end the thread."""
        self._thread.close(timeout_s)

    def _push(self) -> None:
        while names := checkpoint_names(p.name for p in self._store.iterdir()):
            if names[0] in self._committed:
                break
            self._put_rounds()
            try:
                self._put(names[0], self._store / names[0])
            except FileNotFoundError:  # overtaken, and removed while it was read: a newer one is there already
                if (self._store / names[0]).exists():
                    raise
        self._forget_old()
        if self._with_results and RESULTS not in self._committed:
            self._put(RESULTS, self._store)

    def _put_rounds(self) -> None:
        """Make the bucket's models of rounds those that are here."""
        if self._rounds_there is None:
            self._rounds_there = {key.partition("/")[2] for key in self._bucket.keys(f"{MODELS}/")}
        folder = self._store / MODELS
        here = {path.name for path in folder.iterdir() if is_model_of_a_round(path.name)} if folder.is_dir() else set()
        for name in sorted(here - self._rounds_there):
            try:
                self._bucket.upload(folder / name, f"{MODELS}/{name}")
                self._rounds_there.add(name)
            except FileNotFoundError:  # overtaken meanwhile, by the rule for how many are kept
                if (folder / name).exists():
                    raise
        gone = self._rounds_there - here
        self._bucket.delete([f"{MODELS}/{name}" for name in gone])
        self._rounds_there -= gone

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


def _files_in(name: str, manifest: bytes) -> dict[str, str]:
    """sha256 by file name, of the set `name`.

    Raises:
        WrongForm: not a manifest, or one that lacks a file, or names one that `_put` never writes.
    """
    found: dict[str, str] = state_of(manifest, FILES_OF_RESULTS if name == RESULTS else CONTENT)
    for file in found:
        if file in LEFT_OUT:
            raise WrongForm(f"its manifest names {file!r}, which is no file of a trial")
    if name == RESULTS and not {MODEL, REPORT} <= found.keys():
        raise WrongForm(f"its manifest lacks {MODEL} or {REPORT}")
    return found


def fetch_weights(bucket: Bucket, weights: str | None, sweep: Path) -> None:
    """Fetch the sweep's own copy of pretrained weights to this node, where `weights` is inside its folder `sweep`."""
    path = Path(weights) if weights else None
    if path is None or path.parent.parent != sweep or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as new:
        bucket.download(f"{FILES}/{path.parent.name}/{path.name}", new)
