"""A dense round goes through the bucket to a node that has none of its own, bit for bit; a damaged one does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure_server import AzureServer
from tests.s3_server import S3Server
from tests.trainables import toy
from trainables.rsst import experiment
from trainables.rsst.event import Event
from trainables.rsst.trial import open_trial
from trainables.storage.bucket import Bucket, StorageError
from trainables.worker import dense_mirror
from trainables.worker.dense_mirror import DenseMirror

pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def _toy() -> Iterator[None]:
    with toy.installed():
        yield


@pytest.fixture
def bucket(cloud: S3Server | AzureServer) -> Bucket:
    cloud.empty()
    return Bucket(f"{cloud.address}/group/sweep/dense")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The round of every epoch that is really trained."""
    calls: list[int] = []
    real = experiment.train_epoch
    monkeypatch.setattr(
        experiment, "train_epoch", lambda training, epoch: (calls.append(training.round), real(training, epoch))[1]
    )
    return calls


def on_node(node: Path, bucket: Bucket | None, said: list[str], wait_s: float = 20, **knobs: object) -> list[Event]:
    """All events of a trial on a node that has the folder `node` alone, and the bucket."""
    elsewhere = DenseMirror(bucket, said.append) if bucket is not None else None
    config = toy.config(**knobs)
    more = {"data": toy.images(config), "dense": node / "dense", "elsewhere": elsewhere}
    with open_trial(config, node / "trials", say=said.append, **more) as trial:
        events = list(trial.events())
    if elsewhere is not None:
        elsewhere.close(wait_s)
    return events


def test_another_node_takes_the_round_over(bucket: Bucket, tmp_path: Path, trained: list[int]) -> None:
    said: list[str] = []
    on_node(tmp_path / "a", bucket, said, rate=0.5)
    assert 0 in trained
    trained.clear()
    adopted = on_node(tmp_path / "b", bucket, said)
    assert set(trained) == {1, 2} and said == []
    alone = on_node(tmp_path / "c", None, said)
    assert toy.told(adopted) == toy.told(alone)
    assert toy.same_tensors(adopted[-1].snapshot().tensors, alone[-1].snapshot().tensors)
    assert adopted[-1].metrics["epochs_adopted"] == 2
    trained.clear()
    on_node(tmp_path / "d", bucket, said, lr=4e-3)
    assert set(trained) == {0, 1, 2}, "another round"


def test_a_damaged_one_is_said_and_trained_again(bucket: Bucket, tmp_path: Path, trained: list[int]) -> None:
    said: list[str] = []
    on_node(tmp_path / "a", bucket, said)
    [key] = [key for key in bucket.keys("") if "tensors" in key]
    bucket.write(key, b"\0" + (bucket.read(key) or b"")[1:])
    trained.clear()
    on_node(tmp_path / "b", bucket, said)
    assert set(trained) == {0, 1, 2} and len(said) == 1 and "another sha256" in said[0]
    trained.clear()
    on_node(tmp_path / "c", bucket, said)
    assert set(trained) == {1, 2} and len(said) == 1, "it was put there again"


def test_the_oldest_leave_the_bucket(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_mirror, "KEPT", 1)
    on_node(tmp_path / "a", bucket, [])
    first = bucket.folders()
    on_node(tmp_path / "a", bucket, [], lr=4e-3)
    assert len(first) == len(bucket.folders()) == 1 and bucket.folders() != first


def test_without_the_bucket_a_trial_trains_its_own(
    bucket: Bucket, tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> list[str]:
        raise StorageError("storage = s3://away: no answer")

    monkeypatch.setattr(Bucket, "keys", away)
    said: list[str] = []
    assert on_node(tmp_path / "a", bucket, said, 0.1, pruning_times=2)[-1].kind == "final"
    assert set(trained) == {0, 1} and said == [
        "dense rounds of other nodes are not looked for: storage = s3://away: no answer"
    ]
