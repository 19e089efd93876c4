"""A trial's store in a bucket: what is whole there comes back anywhere, what is not is never taken."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.azure_server import AzureServer
from tests.s3_server import S3Server
from tests.trainables import toy
from trainables.rsst.rounds import MODELS
from trainables.rsst.store.checkpoint import CheckpointStore
from trainables.rsst.trial import open_trial
from trainables.storage.bucket import Bucket, StorageError
from trainables.worker import trial_mirror
from trainables.worker.trial_mirror import TrialMirror, fetch_weights

ray_trainable = pytest.importorskip("trainables.worker.ray_trainable")
CONFIG = {"pruning_times": 3, "epochs": 1}


@pytest.fixture(scope="module", autouse=True)
def _toy() -> Iterator[None]:
    with toy.installed():
        yield


@pytest.fixture
def bucket(cloud: S3Server | AzureServer) -> Bucket:
    cloud.empty()
    return Bucket(f"{cloud.address}/group/sweep")


def mirror(bucket: Bucket, root: Path, said: list[str] | None = None) -> TrialMirror:
    store = root / toy.config(**CONFIG).fingerprint
    return TrialMirror(bucket.below("trials"), store, (said if said is not None else []).append)


def train(root: Path, rounds: int, mirrored: TrialMirror | None = None) -> list[dict[str, Any]]:
    """Train until `rounds` rounds are in the store; each is mirrored before the next begins."""
    told = []
    with open_trial(toy.config(**CONFIG), root, say=print, data=toy.images()) as trial:
        for event in trial.events():
            told.append({"kind": event.kind, **event.metrics})
            if mirrored is not None and event.kind in ("round", "final"):
                assert mirrored.flush(30, results=event.kind == "final")
            if sum(e["kind"] == "round" for e in told) == rounds and rounds < CONFIG["pruning_times"]:
                break
    return told


def committed(bucket: Bucket) -> list[str]:
    return [key.split("/")[-2] for key in bucket.keys("trials/") if key.endswith("/manifest.json")]


def numbers(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events without what a clock decides."""
    timed = ("seconds", "images_per_s", "latency_ms", "latency_iqr_ms")
    return [{k: v for k, v in e.items() if k not in timed} for e in events]


def spoil(bucket: Bucket, part: str) -> str:
    """Flip a bit in the middle of the first object whose key has `part` in it."""
    key = next(k for k in bucket.keys("trials/") if part in k)
    data = bytearray(bucket.read(key) or b"")
    data[len(data) // 2] ^= 1
    bucket.write(key, bytes(data))
    return key


def test_a_trial_goes_on_at_an_empty_place_with_the_same_numbers(bucket: Bucket, tmp_path: Path) -> None:
    whole = train(tmp_path / "alone", 3)
    first = mirror(bucket, tmp_path / "a")
    train(tmp_path / "a", 2, first)
    first.close(10)
    second = mirror(bucket, tmp_path / "b")
    second.fetch()
    store = CheckpointStore(tmp_path / "b", toy.config(**CONFIG).fingerprint, print)
    state = store.newest()
    assert state is not None and sum(e["kind"] == "round" for e in state.meta["history"]) == 2
    assert numbers(train(tmp_path / "b", 3, second)) == numbers(whole)
    assert sorted(committed(bucket)) == sorted([*committed(bucket)[:2], "results"]), "the last two, and the results"


def test_the_results_come_to_a_place_that_has_no_store(bucket: Bucket, tmp_path: Path) -> None:
    train(tmp_path / "a", 3, mirror(bucket, tmp_path / "a"))
    there = mirror(bucket, tmp_path / "b")
    assert there.fetch_results()
    name = toy.config(**CONFIG).fingerprint
    for file in ("model.safetensors", "architecture.json", "report.json"):
        assert (tmp_path / "b" / name / file).read_bytes() == (tmp_path / "a" / name / file).read_bytes()
    assert not list((tmp_path / "b" / name).glob(".*"))


def models_of(root: Path) -> dict[str, bytes]:
    folder = root / toy.config(**CONFIG).fingerprint / MODELS
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_models_of_rounds_go_there_and_come_back(bucket: Bucket, tmp_path: Path) -> None:
    train(tmp_path / "alone", 3)
    first = mirror(bucket, tmp_path / "a")
    train(tmp_path / "a", 2, first)
    first.close(10)
    second = mirror(bucket, tmp_path / "b")
    second.fetch()
    assert models_of(tmp_path / "b") == models_of(tmp_path / "a") and len(models_of(tmp_path / "b")) == 2
    train(tmp_path / "b", 3, second)
    mirror(bucket, tmp_path / "c").fetch_rounds()
    assert models_of(tmp_path / "c") == models_of(tmp_path / "alone") and len(models_of(tmp_path / "c")) == 3


def test_models_that_are_kept_no_longer_leave_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    first = mirror(bucket, tmp_path / "a")
    train(tmp_path / "a", 2, first)
    [gone] = (tmp_path / "a").glob(f"*/{MODELS}/r000-*")
    gone.unlink()
    train(tmp_path / "a", 3, first)
    there = [key.rpartition("/")[2] for key in bucket.keys("trials/") if f"/{MODELS}/" in key]
    assert there == sorted(models_of(tmp_path / "a")) and gone.name not in there


def test_a_damaged_model_of_a_round_is_said_and_a_strangers_file_is_left(bucket: Bucket, tmp_path: Path) -> None:
    train(tmp_path / "a", 2, mirror(bucket, tmp_path / "a"))
    spoil(bucket, f"{MODELS}/r001-")
    bucket.below("trials").below(toy.config(**CONFIG).fingerprint).write(f"{MODELS}/notes.txt", b"theirs")
    said: list[str] = []
    mirror(bucket, tmp_path / "b", said).fetch_rounds()
    assert len(said) == 1 and "r001-" in said[0] and "damaged" in said[0]
    assert [name[:4] for name in models_of(tmp_path / "b")] == ["r000"]


def test_the_report_comes_last_because_it_says_that_the_results_are_here(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "a", 3, mirror(bucket, tmp_path / "a"))
    published: list[str] = []
    monkeypatch.setattr(trial_mirror, "publish", lambda new, path: published.append(path.name))
    assert mirror(bucket, tmp_path / "b").fetch_results()
    assert len(published) >= 3 and published[-1] == "report.json"


def test_an_upload_that_was_broken_off_is_no_checkpoint(bucket: Bucket, tmp_path: Path) -> None:
    first = mirror(bucket, tmp_path / "a")
    train(tmp_path / "a", 2, first)
    newest = sorted(committed(bucket))[-1]
    bucket.delete([k for k in bucket.keys("trials/") if f"{newest}/manifest" in k])
    second = mirror(bucket, tmp_path / "b")
    second.fetch()
    assert [p.name for p in (tmp_path / "b").glob("*/r*")] == sorted(committed(bucket))[-1:] != [newest]


def test_a_damaged_checkpoint_is_passed_over_with_a_line(bucket: Bucket, tmp_path: Path) -> None:
    train(tmp_path / "a", 2, mirror(bucket, tmp_path / "a"))
    older, newest = sorted(committed(bucket))
    spoil(bucket, f"{newest}/")
    said: list[str] = []
    mirror(bucket, tmp_path / "b", said).fetch()
    assert [p.name for p in (tmp_path / "b").glob("*/r*")] == [older]
    assert len(said) == 1 and newest in said[0] and "another sha256" in said[0]


def test_damaged_results_are_replaced_after_the_trial_was_replayed_on_another_node(
    bucket: Bucket, tmp_path: Path
) -> None:
    train(tmp_path / "a", 3, mirror(bucket, tmp_path / "a"))
    key = spoil(bucket, "-model.safetensors")
    said: list[str] = []
    second = mirror(bucket, tmp_path / "b", said)
    second.fetch()
    assert len(said) == 1 and said[0].startswith("results in ")
    train(tmp_path / "b", 3, second)
    second.close(10)
    name = toy.config(**CONFIG).fingerprint
    assert bucket.read(key) == (tmp_path / "a" / name / "model.safetensors").read_bytes()
    assert mirror(bucket, tmp_path / "c", said).fetch_results() and len(said) == 1


def test_a_damaged_checkpoint_is_replaced_by_the_node_that_trains_it_again(bucket: Bucket, tmp_path: Path) -> None:
    train(tmp_path / "a", 2, mirror(bucket, tmp_path / "a"))
    newest = sorted(committed(bucket))[-1]
    spoil(bucket, f"{newest}/")
    second = mirror(bucket, tmp_path / "b")
    second.fetch()
    train(tmp_path / "b", 2, second)
    second.close(10)
    said: list[str] = []
    mirror(bucket, tmp_path / "c", said).fetch()
    assert said == [] and [p.name for p in (tmp_path / "c").glob("*/r*")] == [newest]


@pytest.mark.parametrize("name", ["../escaped.txt", "ABSOLUTE", "..", "", "lock", "a/b", ".hidden"])
def test_a_manifest_writes_no_file_but_a_trials_own(bucket: Bucket, tmp_path: Path, name: str) -> None:
    name = name.replace("ABSOLUTE", str(tmp_path / "escaped.txt"))
    store = tmp_path / "a" / toy.config(**CONFIG).fingerprint
    sha = hashlib.sha256(b"theirs").hexdigest()
    at = bucket.below("trials").below(store.name)
    at.write(f"results/{sha[:16]}-{name}", b"theirs")
    at.write("results/manifest.json", json.dumps({name: sha}).encode())
    said: list[str] = []
    one = mirror(bucket, tmp_path / "a", said)
    assert not one.fetch_results()
    assert len(said) == 1 and repr(name)[:50] in said[0] and "\n" not in said[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("text", [b"[]", b"{", b'{"a": 1}', b"null"])
def test_a_manifest_that_is_none_is_a_damaged_set(bucket: Bucket, tmp_path: Path, text: bytes) -> None:
    bucket.below("trials").write(f"{toy.config(**CONFIG).fingerprint}/results/manifest.json", text)
    said: list[str] = []
    assert not mirror(bucket, tmp_path / "a", said).fetch_results() and len(said) == 1


def test_what_is_newer_here_is_kept(bucket: Bucket, tmp_path: Path) -> None:
    train(tmp_path / "a", 1, mirror(bucket, tmp_path / "a"))
    train(tmp_path / "a", 2)
    before = sorted(p.name for p in (tmp_path / "a").glob("*/r*"))
    mirror(bucket, tmp_path / "a").fetch()
    assert sorted(p.name for p in (tmp_path / "a").glob("*/r*")) == before


@pytest.mark.medium
def test_an_outage_is_waited_out(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "a", 1)
    back, real = threading.Event(), Bucket.upload

    def upload(self: Bucket, path: Path, key: str) -> None:
        if not back.is_set():
            raise StorageError("storage = s3://research: gone")
        real(self, path, key)

    monkeypatch.setattr(Bucket, "upload", upload)
    one = mirror(bucket, tmp_path / "a")
    for _ in range(100):  # until the thread has tried once: a busy machine may need more than one wait
        assert not one.flush(0.2, results=False)
        if one.problem:
            break
    assert one.problem == "storage = s3://research: gone"
    back.set()
    assert one.flush(30, results=False) and one.problem is None and len(committed(bucket)) == 1


def test_weights_of_the_sweep_come_to_a_node_that_has_none(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("files/weights/weights-1.safetensors", b"numbers")
    path = tmp_path / "sweep" / "weights" / "weights-1.safetensors"
    fetch_weights(bucket, str(path), tmp_path / "sweep")
    assert path.read_bytes() == b"numbers"
    fetch_weights(bucket, None, tmp_path / "sweep")
    fetch_weights(bucket, "/elsewhere/own.safetensors", tmp_path / "sweep")


def actor(root: Path, storage: str, **more: Any) -> Any:
    made = ray_trainable.SweepTrainable.__new__(ray_trainable.SweepTrainable)
    knobs = toy.config(**CONFIG).knobs()
    config = {"knobs": knobs, "store": str(root / "trials"), "storage": storage, "trial_key": "t0000", "reported": 0}
    made.setup({**config, "resources": {"CPU": 1}, **more})
    return made


def steps(worker: Any, until: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or not until(told):
        told.append(worker.step())
        assert len(told) < 60, told
    return told


@pytest.mark.medium
def test_a_worker_on_another_node_goes_on_from_the_bucket(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.worker.images.load", toy.images)
    first = actor(tmp_path / "node-1", bucket.address)
    told = steps(first, lambda told: any(e["kind"] == "round" for e in told[-1]["events"]))
    first.cleanup()
    second = actor(tmp_path / "node-2", bucket.address, reported=sum(len(r["events"]) for r in told))
    rest = steps(second, lambda told: told[-1]["done"])
    second.cleanup()
    assert rest[0]["placed"][0]["epochs_there"] == 1
    kinds = [e["kind"] for r in rest for e in r["events"]]
    assert kinds.count("round") == 2 and kinds[-1] == "final"
    assert "results" in committed(bucket)


def test_a_trial_has_finished_when_its_model_is_in_the_bucket(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.worker.images.load", toy.images)
    monkeypatch.setattr(ray_trainable, "FLUSH_S", 0.2)
    away, real = [True], TrialMirror._put

    def put(self: TrialMirror, name: str, folder: Path) -> None:
        if away[0] and name == "results":
            raise StorageError("storage = s3://research: gone")
        real(self, name, folder)

    monkeypatch.setattr(TrialMirror, "_put", put)
    worker = actor(tmp_path, bucket.address)
    waiting = steps(worker, lambda told: "gone" in told[-1].get("waiting", ""))
    assert waiting[-1]["waiting"] == "storage = s3://research: gone"
    assert not any(e["kind"] == "final" for r in waiting for e in r["events"])
    away[0] = False
    last = steps(worker, lambda told: told[-1]["done"])[-1]
    worker.cleanup()
    assert last["events"][-1]["kind"] == "final" and "results" in committed(bucket) and "failed" not in last
