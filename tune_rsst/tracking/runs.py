"""A sweep's runs in MLflow. It imports mlflow when first used: that takes seconds.

In: what is to be in which run (writes.py).
Out: the runs, found again by their tags or made. Whatever the store raises is raised; the uploader's thread catches it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainables.storage.files import remove_leftovers, replaced
from trainables.storage.locks import held
from tune_rsst.settings.addresses import _sqlite_file
from tune_rsst.storage import home
from tune_rsst.tracking.write import OF_THE_SWEEP, PARENT, Images, Point, Write, profile_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRIMARY_METRIC_TAG, PRIMARY_METRIC = "mlflow.experiment.primaryMetric.name", "val_top1"
FORMER_PRIMARY_METRIC = "final/val_top1"
# One try a request: the thread tries again itself and looks first what the lost request has done.
REQUEST_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
FILES_TAG, REPLACED_TAG = "files", "replaced"
GONE, REASON_LENGTH = "not writable: ", 500
REFUSED = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_LIMIT_EXCEEDED")


class Identity(Protocol):
    """Says what a run is created with: name, start in ms, tags."""

    def identity(self, run: str) -> tuple[str, int, dict[str, str]]: ...


def find_parent_run(tracking_uri: str, experiment: str, sweep: str) -> str | None:
    """Run id of the newest sweep of that name."""
    client = _client(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    where = f"tags.sweep = '{sweep}' and tags.role = 'sweep'"
    runs = client.search_runs([found.experiment_id], where, max_results=1) if found else []
    return str(runs[0].info.run_id) if runs else None


def _client(tracking_uri: str) -> MlflowClient:
    """A client with bounded requests; on sqlite this makes or migrates the database, one process at a time."""
    for name, value in REQUEST_DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what it raises as well
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of what MLflow tries and takes back
    from mlflow import MlflowClient

    database = _sqlite_file(tracking_uri)
    if database is None:
        return MlflowClient(tracking_uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with held(database.with_name(f".{database.name}.lock")):
        home.artifacts_follow()
        if not database.exists():
            remove_leftovers(database.parent, of=database.name)  # of whoever was killed here: the lock is ours
            with replaced(database) as new:  # MLflow refuses for ever what a kill leaves of its making the tables
                MlflowClient(f"sqlite:///{new}")
        return MlflowClient(tracking_uri)


def artifacts_at(tracking_uri: str, experiment: str) -> str | None:
    """Where the files of a new experiment go: beside a sqlite file, for another database below the home.

    None: a server decides. MLflow itself would take a database's files to whatever folder the driver runs in.
    """
    if tracking_uri.startswith("http"):
        return None
    database = _sqlite_file(tracking_uri)
    folder = re.sub(r"[^\w.-]+", "_", experiment)
    return str((database.parent if database else home.home()) / "mlartifacts" / folder)


class SweepRuns:
    """One sweep's runs in one MLflow experiment.

    `runs` maps trial (or PARENT) to run id; `deleted` are those that a user deleted: they stay deleted.
    """

    def __init__(self, tracking_uri: str, experiment: str, sweep_uid: str) -> None:
        """Connect, make the experiment when missing, and find the sweep's runs.

        Raises:
            RuntimeError: the experiment was deleted.
        """
        self._client, self._uid = _client(tracking_uri), sweep_uid
        self.experiment_id = self._experiment_of(experiment, artifacts_at(tracking_uri, experiment))
        self.runs: dict[str, str] = {}
        self.deleted: set[str] = set()
        self._status: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._create_unanswered = self._doubles_possible = False
        self._there: dict[tuple[str, str], set[tuple[int, float]]] | None = None
        self._find_runs()

    def look_first(self) -> None:
        """From now on a point that MLflow has is not written again, whatever its time: the ledger may tell another.

        A line that was lost and came again, or was rebuilt, has the time of the second one.
        """
        self._there = {}

    def tells_more(self, told: Iterable[Point]) -> bool:
        """Whether one of our curves in the sweep's own run has a point that is not in `told`, all of the ledger's."""
        if PARENT not in self.runs:
            return False
        run_id, right = self.runs[PARENT], {(key, step, value) for key, value, _, step in told}
        keys = [key for key in self._client.get_run(run_id).data.metrics if key.startswith(OF_THE_SWEEP)]
        return any((key, *point) not in right for key in keys for point in self._history(run_id, key))

    def replace_parent(self) -> None:
        """Delete the sweep's own run, for which another one is made: MLflow takes no point back.

        The tag comes first, so that after a kill in between nobody takes it for a run that a user deleted.
        """
        run_id = self.runs.pop(PARENT)
        self._client.set_tag(run_id, REPLACED_TAG, "it tells of lines that the ledger has lost")
        self._client.delete_run(run_id)
        self._status.pop(PARENT, None)
        self._files.pop(PARENT, None)

    def _history(self, run_id: str, key: str) -> set[tuple[int, float]]:
        return {(one.step, one.value) for one in self._client.get_metric_history(run_id, key)}

    def _new_points(self, write: Write, run_id: str) -> list[Point]:
        if self._there is None:
            return write.points
        for key in {point[0] for point in write.points if (run_id, point[0]) not in self._there}:
            self._there[run_id, key] = self._history(run_id, key)
        return [point for point in write.points if (point[3], point[1]) not in self._there[run_id, point[0]]]

    def _experiment_of(self, name: str, location: str | None) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is None:
            return str(self._client.create_experiment(name, location, {PRIMARY_METRIC_TAG: PRIMARY_METRIC}))
        if known.lifecycle_stage != "active":
            hint = "it was deleted in MLflow; restore it there, or choose another"
            raise RuntimeError(f"mlflow_experiment = {name}: {hint}")
        if known.tags.get(PRIMARY_METRIC_TAG) in (None, FORMER_PRIMARY_METRIC):
            self._client.set_experiment_tag(known.experiment_id, PRIMARY_METRIC_TAG, PRIMARY_METRIC)
        return str(known.experiment_id)

    def _find_runs(self) -> None:
        """Learn the sweep's runs. Of two for one trial (a create's answer was lost) the one that holds more stays."""
        from mlflow.entities import ViewType

        found: dict[str, list[Any]] = defaultdict(list)
        gone: set[str] = set()
        where, token = f"tags.sweep_uid = '{self._uid}'", None
        while token != "":
            page = self._client.search_runs([self.experiment_id], where, ViewType.ALL, 1000, page_token=token)
            for run in page:
                name, active = run.data.tags.get("trial", PARENT), run.info.lifecycle_stage == "active"
                if REPLACED_TAG in run.data.tags:
                    if active:
                        self._client.delete_run(run.info.run_id)
                elif active:
                    found[name].append(run)
                else:
                    gone.add(name)
            token = page.token or ""
        for name, runs in found.items():
            kept, *doubles = sorted(runs, key=lambda r: (-len(r.data.metrics) - len(r.data.params), r.info.run_id))
            self.runs[name], self._status[name] = kept.info.run_id, kept.info.status
            self._files[name] = kept.data.tags.get(FILES_TAG, "")
            for double in doubles:
                self._client.delete_run(double.info.run_id)
        self.deleted = gone - self.runs.keys()
        self._create_unanswered = False

    def drop_doubles(self) -> None:
        """Delete runs that a create made after its answer was given up."""
        if self._doubles_possible:
            self._find_runs()
            self._doubles_possible = False

    def holds(self, names: Iterable[str]) -> bool:
        """Whether MLflow has, or had, a run for each of `names`."""
        return all(name in self.runs or name in self.deleted for name in names)

    def start_ms(self, run: str, plan: Identity) -> int:
        """When the run began, as MLflow has it; the run is made when missing."""
        return int(self._client.get_run(self._run_id(run, plan)).info.start_time)

    def has_files(self, run: str, version: str) -> bool:
        """Whether the run's artifacts are of `version` already. True as well when the run does not exist."""
        return run not in self.runs or self._files.get(run) == version

    def put_files(self, run: str, files: Mapping[str, Sequence[Path]], version: str) -> None:
        """Upload `files` (by folder of the run's artifacts) and remember in a tag that they are of `version`."""
        for where, paths in files.items():
            for path in paths:
                self._client.log_artifact(self.runs[run], str(path), where or None)
        self._client.set_tag(self.runs[run], FILES_TAG, version)
        self._files[run] = version

    def put(self, write: Write, plan: Identity) -> str | None:
        """Write into the run, which is made when missing. Returns why MLflow will never take it, if so.

        Raises:
            LookupError: a run that was there is gone, for example with the whole database.
        """
        from mlflow.entities import Metric, Param, RunTag

        if write.run in self.deleted:
            return "it was deleted in MLflow, and nothing more is written to it"
        run_id = self._run_id(write.run, plan)
        if self._there is not None and write.run != PARENT:  # the sweep's own run may be another one by now
            write.tags["mlflow.parentRunId"] = self._run_id(PARENT, plan)
        batch: dict[str, list[Any]] = {
            "metrics": [Metric(*point) for point in self._new_points(write, run_id)],
            "params": [Param(*item) for item in write.params.items()],
            "tags": [RunTag(*item) for item in write.tags.items()],
        }
        log = partial(self._client.log_batch, run_id)
        refused = self._taken(partial(log, **batch))
        if refused and GONE not in refused:  # one bad name must not cost the rest of the batch
            parts = [{kind: [item]} for kind, items in batch.items() for item in items]
            reasons = [self._taken(partial(log, **part)) for part in parts]
            refused = "; ".join(dict.fromkeys(reason for reason in reasons if reason))[:REASON_LENGTH]
        if write.images:
            refused = "; ".join(filter(None, (refused, self._taken(partial(self._log_images, run_id, write.images)))))
        return self._put_status(write, run_id) or refused or None

    def _log_images(self, run_id: str, images: Sequence[Images]) -> None:
        """Runs on the same images share one data set of MLflow: it is known by name and digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", "training")]
        found = [
            Dataset(
                about["name"], about["digest"], "local", json.dumps({"uri": place}), None, json.dumps(profile_of(about))
            )
            for about, place in images
        ]
        self._client.log_inputs(run_id, [DatasetInput(dataset, tags) for dataset in found])

    def _put_status(self, write: Write, run_id: str) -> str:
        if not write.status or self._status.get(write.run) == write.status:
            return ""
        if write.status == "RUNNING":
            request = partial(self._client.update_run, run_id, status="RUNNING")
        else:
            request = partial(self._client.set_terminated, run_id, write.status, write.end_ms)
        if not (refused := self._taken(request)):
            self._status[write.run] = write.status
        return refused

    def _taken(self, request: Callable[[], object]) -> str:
        """Make a request; why MLflow will never take it, or "".

        Raises:
            LookupError: the run is gone.
        """
        from mlflow.exceptions import MlflowException

        try:
            request()
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise LookupError("a run that was uploaded is no longer in MLflow: all is uploaded again") from error
            if error.error_code in REFUSED:
                return (GONE if error.error_code == "INVALID_STATE" else "") + " ".join(str(error).split())
            raise
        return ""

    def _run_id(self, run: str, plan: Identity) -> str:
        if self._create_unanswered:
            self._find_runs()
        if run not in self.runs:
            name, start_ms, tags = plan.identity(run)
            if run != PARENT:
                tags["mlflow.parentRunId"] = self._run_id(PARENT, plan)
            self._create_unanswered = True
            try:
                made = self._client.create_run(self.experiment_id, start_ms, tags, name)
            except Exception:
                self._doubles_possible = True
                raise
            self._create_unanswered = False
            self.runs[run], self._status[run] = made.info.run_id, "RUNNING"
        return self.runs[run]
