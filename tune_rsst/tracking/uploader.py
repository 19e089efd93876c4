"""Uploads a sweep's ledger to MLflow, in a thread of the driver.

In: a ledger that somebody writes. Out: a parent run for the sweep and a child run for each trial; their files
(artifacts.py). The cursor says how far the upload has come. What is written twice gives the same records once (points
have the ledger's timestamps, runs are found again by their tags), so an upload can stop anywhere; the next driver or
`tune-rsst sync` continues it. Nothing here raises into the sweep: a server that is down or hangs costs the thread its
time and no one else's.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from trainables.storage.locks import LockHeld, take
from trainables.storage.retrying import RetryingThread
from trainables.storage.secrets import hide_password
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.storage.cursor import Cursor, load_cursor, store_cursor
from tune_rsst.storage.folder import SweepFolder, is_driven
from tune_rsst.tracking.artifacts import RunFiles
from tune_rsst.tracking.runs import SweepRuns
from tune_rsst.tracking.writes import PARENT, Point, RunWrites, Write

# Most of a batch's cost does not depend on its size, and while one is written the driver shares its core.
GATHER_S = 5.0
MOST_REFUSED = 20


class Uploader:
    """Uploads one ledger. The driver calls `start`, `notify` after each append, and `close`; none of them raises."""

    def __init__(self, folder: SweepFolder, settings: Mapping[str, Any], *, files: bool = True) -> None:
        """For the sweep in `folder`, to the MLflow that its settings name; with pictures and files, or without.

        `refused` lists what MLflow will never take, one line each; the rest is there.
        """
        self._folder, self._storage = folder, settings.get("storage")
        self._uri, self._experiment = str(settings["mlflow_tracking_uri"]), str(settings["mlflow_experiment"])
        self._files = RunFiles(folder) if files else None
        self._tail = LedgerTail(folder.ledger)
        self._cursor = self._stored_cursor()
        self._store: SweepRuns | None = None
        self._plan = RunWrites("", folder)
        self._unsent: deque[Write] = deque()
        self._lock_file: int | None = None
        self._lines_at = 0.0
        self.refused: list[str] = []
        self._thread = RetryingThread(self._upload, name="mlflow-uploader", gather_s=GATHER_S, at_end=self._release)

    @property
    def parent_run_id(self) -> str | None:
        """The sweep's run, as soon as it is known."""
        return self._cursor.parent_run_id

    def run_ids(self) -> Mapping[str, str]:
        """Trial → its run, those that are known by now; the sweep's own is PARENT's. From any thread, at no cost."""
        store = self._store
        return {} if store is None else store.runs

    @property
    def problems(self) -> list[str]:
        """What went wrong lately, oldest first; one line each, without passwords."""
        return list(self._thread.problems)

    def start(self, after_s: float = 0.0) -> None:
        """Begin to upload, in a thread, `after_s` from now or at `close`."""
        self._thread.start(after_s)

    def notify(self, hurry: bool = False) -> None:
        """The ledger has grown; from a `hurry` on each line is sent at once, and no picture is drawn before `close`."""
        (self._thread.hurry if hurry else self._thread.wake)()

    def close(self, timeout_s: float) -> int:
        """Upload what is left, for `timeout_s` at most; returns the number of ledger lines that are still missing.

        A thread that is left behind in a request lets go of the cursor when that request ends.
        """
        self._thread.close(timeout_s)
        return self.missing()

    def sync_once(self, timeout_s: float = 600.0) -> int:
        """Upload everything now, in this thread; returns the number of lines still missing (`problems` says why).

        A sweep whose driver was killed is marked so, which only this can do.
        """
        self._thread.run_here(timeout_s)
        if not self.missing() and not is_driven(self._folder, self._storage):
            self._thread.attempt(self._settle)
        self._release()
        return self.missing()

    def missing(self) -> int:
        """Ledger lines that are not in MLflow yet."""
        cursor = self._cursor if self._lock_file is not None else self._stored_cursor()
        return self._tail.lines_beyond(cursor.offset)

    def _stored_cursor(self) -> Cursor:
        """The cursor on the disk; at the beginning when it belongs to another ledger or another MLflow."""
        beginning = Cursor(self._tail.uid(), f"{hide_password(self._uri)} {self._experiment}")
        cursor = load_cursor(self._folder.cursor)
        return cursor if (cursor.sweep_uid, cursor.target) == (beginning.sweep_uid, beginning.target) else beginning

    def _upload(self) -> None:
        if self._store is None and not self._open():
            return
        assert self._store is not None
        self._upload_lines(self._store)
        if self._thread.closing:
            self._store.drop_doubles()
        if self._files is not None and (self._thread.closing or not self._thread.hurried):
            self._upload_files(self._files, self._store)

    def _upload_lines(self, store: SweepRuns) -> None:
        """Everything that the ledger has by now."""
        while True:
            while self._unsent:
                self._send(store, self._unsent[0])
                self._unsent.popleft()
            if self._cursor.offset != self._tail.offset:
                self._cursor.offset = self._tail.offset
                store_cursor(self._folder.cursor, self._cursor)
            events = self._tail.read()
            if not events:
                break
            try:
                for event in events:
                    self._plan.apply(event)
                self._unsent.extend(self._plan.take())
            except Exception:
                self._store = None  # lines were read and not planned: begin again at the cursor
                raise
        self._lines_at = time.monotonic()

    def _upload_files(self, files: RunFiles, store: SweepRuns) -> None:
        """Pictures and files of what has ended, while lines that come meanwhile go first."""
        hurried = self._thread.hurried
        with closing(files.upload(store, self._plan, self._thread.time_left_s)) as steps:
            for problem in steps:
                if problem:
                    self._thread.note(problem)
                if self._thread.hurried and not hurried:
                    break
                if time.monotonic() - self._lines_at >= GATHER_S:
                    self._upload_lines(store)
        self._upload_lines(store)

    def _send(self, store: SweepRuns, write: Write) -> None:
        if self._thread.time_left_s < 0:
            raise TimeoutError("the time to finish the upload is over")
        try:
            refusal = store.put(write, self._plan)
        except LookupError:
            self._store = None
            raise
        if refusal:
            line = f"run {write.run or self._plan.view.name}: {refusal}"
            self._thread.note(line)
            self.refused = [*self.refused, hide_password(line)][-MOST_REFUSED:]
        if write.run == PARENT:
            self._cursor.parent_run_id = store.runs.get(PARENT)

    def _open(self) -> bool:
        """Take the cursor, connect, and bring the plan to where the cursor is. False while the ledger has no line."""
        uid = self._tail.uid()
        if not uid:
            return False
        self._take_lock()
        store = SweepRuns(self._uri, self._experiment, uid)
        cursor, plan = self._stored_cursor(), RunWrites(uid, self._folder)
        self._tail.rewind()
        while self._tail.offset < cursor.offset and (events := self._tail.read(until=cursor.offset)):
            for event in events:
                plan.apply(event)
        plan.take()
        if self._tail.offset != cursor.offset or not store.holds(plan.births):
            cursor.offset, plan = 0, RunWrites(uid, self._folder)
            self._tail.rewind()
        if cursor.sent_again or (cursor.offset == 0 and store.runs):
            cursor.sent_again = 1
            store.look_first()
            if store.tells_more(self._all_of_the_parent(uid)):
                self._thread.note("the sweep's run told of lines that its ledger has lost; a new run takes its place")
                store.replace_parent()
                cursor.offset, plan = 0, RunWrites(uid, self._folder)
                self._tail.rewind()
        cursor.parent_run_id, cursor.experiment_id = store.runs.get(PARENT), store.experiment_id
        store_cursor(self._folder.cursor, cursor)  # before the notes, which name the sweep's page
        self._unsent.clear()
        self._cursor, self._plan, self._store = cursor, plan, store
        return True

    def _all_of_the_parent(self, uid: str) -> list[Point]:
        """Every point that the ledger tells by now of the sweep's own curves."""
        plan, tail = RunWrites(uid, self._folder), LedgerTail(self._folder.ledger)
        while events := tail.read():
            for event in events:
                plan.apply(event)
        return [point for write in plan.take() if write.run == PARENT for point in write.points]

    def _settle(self) -> None:
        """A sweep that ended without saying so, and that nobody drives, was killed."""
        killed = self._plan.births and (self._plan.state == "running" or self._plan.repeats)
        if self._store is not None and killed:
            self._plan.interrupted() if self._plan.state == "running" else self._plan.repeats_no_more()
            for write in self._plan.take():
                self._store.put(write, self._plan)

    def _take_lock(self) -> None:
        """One uploader per cursor; the kernel lets go of the lock when its process dies."""
        if self._lock_file is None:
            try:
                self._lock_file = take(self._folder.cursor.with_name(f".{self._folder.cursor.name}.lock"), 0.0)
            except LockHeld:
                raise RuntimeError("another process is uploading this sweep to MLflow") from None

    def _release(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None
