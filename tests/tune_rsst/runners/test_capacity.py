"""A trial lies on one node: what single nodes have decides, and a node that is not there yet is waited for."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from trainables.rsst.config import ConfigError
from tune_rsst.runners import capacity
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.written import given

SMALL, GPU = {"CPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "room"),
    [
        ([SMALL, SMALL], 1.0, 0.0, 2),
        ([SMALL, SMALL], 2.0, 0.0, 0),
        ([SMALL, GPU], 1.0, 1.0, 2),
        ([SMALL, GPU], 4.0, 0.25, 2),
        ([{"CPU": 8.0, "GPU": 2.0}], 1.0, 0.6, 2),
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}], 1.0, 2.0, 0),
        ([{"CPU": 16.0}, {"CPU": 1.0, "GPU": 1.0}], 2.0, 1.0, 0),
        ([], 1.0, 0.0, 0),
    ],
)
def test_room_is_counted_node_by_node(nodes: list[Any], cpus: float, gpus: float, room: int) -> None:
    assert capacity.places(nodes, cpus, gpus) == room


def at_once(nodes: list[Any], *words: str, cluster: bool) -> int:
    settings = resolve(given(None, words))
    return capacity.trials_at_once(settings, 1.0, 0.0, nodes, cluster=cluster)


def test_at_once_is_what_has_room_or_on_a_cluster_that_may_grow_what_the_user_says() -> None:
    assert at_once([GPU], cluster=False) == at_once([GPU], cluster=True) == 8
    assert at_once([GPU], "max_concurrent_trials=3", cluster=False) == 3
    assert at_once([SMALL, SMALL], "max_concurrent_trials=20", cluster=False) == 2
    assert at_once([SMALL, SMALL], "max_concurrent_trials=20", cluster=True) == 20
    with pytest.raises(ConfigError, match=r"cpus_per_trial = 1.0: valid is what one node has: at most 0.5 CPUs"):
        at_once([{"CPU": 0.5}], cluster=False)


@pytest.mark.parametrize(
    ("words", "cores", "trials", "workers"),
    [
        (["cpus_per_trial=1", "gpus_per_trial=0"], 2, 12, 2),
        (["cpus_per_trial=1", "gpus_per_trial=0"], 64, 12, capacity.MOST_AT_FIRST),
        (["cpus_per_trial=1", "gpus_per_trial=0"], 64, 1, 1),
        (["cpus_per_trial=4", "gpus_per_trial=0"], 2, 12, 1),
        (["cpus_per_trial=0.5", "gpus_per_trial=0"], 2, 12, 4),
        (["cpus_per_trial=1", "gpus_per_trial=0", "max_concurrent_trials=1"], 8, 12, 1),
        (["cpus_per_trial=auto", "gpus_per_trial=0"], 8, 12, 1),
        (["cpus_per_trial=1", "gpus_per_trial=0.5"], 8, 12, 0),
        (["cpus_per_trial=1", "gpus_per_trial=auto"], 8, 12, 0),
    ],
)
def test_workers_start_with_ray_as_many_as_trials_run_at_once_and_none_where_a_gpu_is_given_out(
    words: list[str], cores: int, trials: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity.os, "sched_getaffinity", lambda _: set(range(cores)))
    assert capacity.workers_at_first(resolve(given(None, words)), trials) == workers


class Autoscaler:
    """Stands in for Ray: the second node comes after so many looks; remembers what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, comes_after: int) -> None:
        self.asked: list[Any] = []
        self.looks, self.comes_after = 0, comes_after
        sdk = types.SimpleNamespace(request_resources=lambda bundles: self.asked.append(bundles))
        monkeypatch.setitem(sys.modules, "ray.autoscaler.sdk", sdk)
        monkeypatch.setattr(capacity, "alive_nodes", self.nodes)
        monkeypatch.setattr(capacity, "LOOK_EVERY_S", 0.01)

    def nodes(self) -> list[Any]:
        self.looks += 1
        return [SMALL] if self.looks <= self.comes_after else [SMALL, GPU]


def test_a_node_that_is_not_there_is_asked_for_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, said = Autoscaler(monkeypatch, comes_after=4), []
    assert capacity.wait_for_room(1.0, 1.0, said.append) == [SMALL, GPU]
    assert ray.asked == [[{"CPU": 1.0, "GPU": 1.0}], []], "asked for, and taken back"
    assert len(said) == 1 and "1 CPU, 1 GPU" in said[0] and "0 GPUs" in said[0]


def test_where_there_is_room_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Autoscaler(monkeypatch, comes_after=0)
    capacity.wait_for_room(1.0, 1.0, lambda line: pytest.fail(line))
    assert ray.asked == []


def test_a_node_that_never_comes_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Autoscaler(monkeypatch, comes_after=10**9)
    with pytest.raises(ConfigError, match=r"gpus_per_trial = 1.0: valid is what one node has"):
        capacity.wait_for_room(1.0, 1.0, lambda line: None, wait_s=0.05)
    assert ray.asked[-1] == []
