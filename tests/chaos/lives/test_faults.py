"""What the injector draws from, and the object store that it kills: what was taken is there after a new start."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from tests.chaos.__main__ import IN_ONE_SWEEP
from tests.chaos.lives.faults import KINDS_OF, deck
from tests.chaos.lives.injector import Injector
from tests.chaos.lives.object_store import Handler, Objects
from tests.chaos.lives.subject import MODES, Subject
from trainables.storage.bucket import Bucket, Missing, Taken


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("of_files", [False, True])
def test_a_deck_holds_every_kind_and_no_life_ends_twice_in_a_row(mode: str, of_files: bool) -> None:
    kinds = {name: kind for name, kind in KINDS_OF[mode].items() if bool(kind.pattern) == of_files}
    for seed in range(20):
        drawn = deck(random.Random(seed), kinds)
        assert Counter(drawn) == {name: kind.often for name, kind in kinds.items()}
        ends = [bool(kinds[name].ends) for name in drawn]
        assert not any(one and other for one, other in pairwise(ends)) or 2 * sum(ends) > len(ends)


def test_just_these_faults_and_then_none(tmp_path: Path) -> None:
    injector = Injector(Subject.below(tmp_path, 2), random.Random(1), lambda: 9.0, print, dict(KINDS_OF["services"]))
    injector.just(IN_ONE_SWEEP)
    drawn = []
    while injector.left_s() > 0:
        drawn.append(injector._next(of_files=False))
    assert Counter(drawn) == IN_ONE_SWEEP and sum(IN_ONE_SWEEP.values()) == 31


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setattr(Handler, "objects", Objects(tmp_path / "objects"), raising=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield Bucket("s3://research/group")
    server.shutdown()


@pytest.mark.medium
def test_the_object_store_does_what_a_sweep_asks_of_one(bucket: Bucket, tmp_path: Path) -> None:
    bucket.check()
    first = bucket.write("a/lease", b"1", new=True)
    bucket.write("a/lease", b"2", version=first)
    for condition in ({"new": True}, {"version": first}):
        with pytest.raises(Taken):
            bucket.write("a/lease", b"3", **condition)  # type: ignore[arg-type]
    large, back = tmp_path / "large", tmp_path / "back"
    large.write_bytes(os.urandom(11 << 20))
    bucket.upload(large, "b/large")
    bucket.download("b/large", back)
    Handler.objects = Objects(tmp_path / "objects")  # a new start: nothing was in memory
    assert (bucket.read("a/lease"), bucket.folders()) == (b"2", ["a", "b"]) and back.read_bytes() == large.read_bytes()
    for n in range(1200):
        (tmp_path / "objects" / f"research%2Fgroup%2Fn%2F{n:04}").write_bytes(b"n")
    assert bucket.keys("n/") == [f"n/{n:04}" for n in range(1200)]
    bucket.delete(bucket.keys())
    with pytest.raises(Missing):
        bucket.download("b/large", back)
    assert bucket.keys() == [] and bucket.find("a/lease") is None
