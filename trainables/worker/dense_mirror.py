"""A sweep's dense rounds in its bucket, so that another node takes one over instead of training it.

In: the folders of dense rounds of this node's cache. Out: the same below the bucket's `KEY/`, as a trial's checkpoints
lie there (trial_mirror.py); those that were written last stay. Nothing is locked: two nodes may train the same round,
and what they put there is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trainables.progress import lasting
from trainables.rsst.dense import KEPT
from trainables.rsst.store.reading import MANIFEST
from trainables.storage.bucket import Bucket, StorageError
from trainables.worker.trial_mirror import TrialMirror

LOOKING = "looking for the dense round in the bucket"


class DenseMirror:
    """The dense rounds in `bucket`, for one trial; `say` gets a line for a damaged one, and where it can't be read."""

    def __init__(self, bucket: Bucket, say: Callable[[str], None]) -> None:
        self._bucket, self._say = bucket, say
        self._sending: TrialMirror | None = None

    def fetch(self, folder: Path) -> None:
        """Bring the round of the key `folder.name`, where the bucket has it."""
        try:
            with lasting(LOOKING):
                TrialMirror(self._bucket, folder, self._say).fetch()
        except StorageError as error:
            self._say(f"dense rounds of other nodes are not looked for: {error}")

    def keep(self, folder: Path) -> None:
        """Upload the round in `folder`, in a thread; `close` waits for it."""
        self._sending = TrialMirror(self._bucket, folder, self._say)
        self._sending.wake()

    def close(self, timeout_s: float) -> None:
        """Upload what is left, for `timeout_s` at most; of more than `KEPT` rounds the oldest leave the bucket."""
        if self._sending is None:
            return
        self._sending.close(timeout_s)
        if self._sending.problem is None:
            with suppress(StorageError):  # the next trial removes them
                self._forget_old()
        self._sending = None

    def _forget_old(self) -> None:
        names = self._bucket.folders()
        if len(names) <= KEPT:
            return
        manifests = [key for key in self._bucket.keys("") if key.endswith(f"/{MANIFEST}")]
        written = {key: found.written for key in manifests if (found := self._bucket.find(key)) is not None}
        for key in sorted(written, key=lambda key: written[key])[: max(len(written) - KEPT, 0)]:
            self._bucket.delete([key])  # first: from here on it is none
            self._bucket.delete(self._bucket.keys(f"{key.partition('/')[0]}/"))
