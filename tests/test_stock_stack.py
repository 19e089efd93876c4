"""The stock program of `benchmarks.stock_stack` does what it says; parts are switched off; its table is right."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks import _stock, stock_stack
from benchmarks.without import sitecustomize
from trainables.rsst.config import RSSTConfig
from trainables.rsst.pruning.selection import keep_count

CASE = stock_stack.Case("vit_digits", trials=8, dense=2, epochs=1, train=0)


def test_the_stock_program_masks_as_many_units_as_a_trial_removes(tmp_path: Path) -> None:
    CASE.draw(tmp_path)
    CASE.for_stock(tmp_path, amp=False)
    case = stock_stack.json.loads((tmp_path / "case.json").read_text()) | {"epochs": 1}
    images = {name: array[:64] for name, array in np.load(tmp_path / "images.npz").items()}
    told: list[tuple[dict[str, Any], Any]] = []
    point = {"lr": 1e-3, "reg_granularity_prune": 1.0, "rounds": 2}
    _stock.train(point, images, case, lambda metrics, state: told.append((metrics, state)))
    (dense, _), (end, state) = told
    heads, neurons = keep_count(0.3, 4), keep_count(0.3, 128)
    assert dense["kept_share"] == 1 and end["kept_share"] == 4 * (heads + neurons) / (4 * (4 + 128))
    for layer in range(4):
        qkv = state["weights"][f"blocks.{layer}.attn.qkv.weight"].view(3, 4, 16, 64)
        assert sorted(state["alive"]["head", layer]) == [u for u in range(4) if qkv[:, u].any()]
        for name, dim in (("mlp.fc1.weight", 1), ("mlp.fc2.weight", 0)):
            used = state["weights"][f"blocks.{layer}.{name}"].abs().sum(dim).nonzero().flatten().tolist()
            assert used == sorted(state["alive"]["neuron", layer])
        used = state["weights"][f"blocks.{layer}.attn.proj.weight"].abs().sum(0).view(4, 16).sum(1) > 0
        assert int(used.sum()) == heads


def test_points_meet_and_both_sides_get_the_same(tmp_path: Path) -> None:
    points = CASE.points
    assert len({point["lr"] for point in points}) == 2 and {point["rounds"] for point in points} == {3, 4, 5, 6}
    words = CASE.for_own(tmp_path, amp=True, sharing=False)
    given = stock_stack.json.loads((tmp_path / "points.yaml").read_text())
    assert [point["prunings"] + 1 for point in given] == [point["rounds"] for point in points]
    assert {"share_dense=false", "amp=true", "stopping=none"} <= set(words)
    config = RSSTConfig.from_knobs({**CASE.fixed, **given[0], "target_density": stock_stack.TARGET})
    assert config.rounds == points[0]["rounds"] and config.dataset == "digits"


def test_a_part_is_switched_off_where_its_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (module, change) in sitecustomize.PARTS.items():
        copy = ModuleType(name)
        copy.__dict__.update(vars(importlib.import_module(module)))
        copy.__dict__["Running"] = type("Running", (), {"harden": None})
        before = dict(vars(copy)) | {"harden": None}
        change(copy)
        after = dict(vars(copy)) | {"harden": copy.Running.harden}
        assert {key for key in after if after[key] is not before[key]} <= {"harden", "fast_linears", "fast_kernels"}
        assert any(after[key] is not before[key] for key in after)
    (tmp_path / "toy_part.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sitecustomize.PARTS, "toy", ("toy_part", lambda module: setattr(module, "value", 2)))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    sitecustomize.switch_off("toy")
    assert importlib.import_module("toy_part").value == 2
    del sys.modules["toy_part"]


def test_without_compaction_only_the_last_round_hardens(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.rsst import running

    monkeypatch.setattr(running.Running, "harden", running.Running.harden)
    called: list[int] = []
    monkeypatch.setattr(running.Running, "harden", lambda trial: called.append(trial.round))
    sitecustomize._compaction(running)
    for number in range(3):
        trial = type("T", (), {"round": number, "config": type("C", (), {"rounds": 3})})()
        running.Running.harden(trial)  # type: ignore[arg-type]
    assert called == [2]


def test_ratios_are_of_pairs() -> None:
    def record(way: str, pair: int, wall_s: float, cpu_s: float) -> dict[str, Any]:
        told = {"trained": 10, "best": 0.9, "load": 1.0}
        return {"way": way, "pair": pair, "wall_s": wall_s, "cpu_s": cpu_s, **told}

    own = stock_stack.OWN
    records = [record(stock_stack.STOCK, n, 20 + 10 * n, 40) for n in range(3)]
    records += [record(own, n, 10, 20) for n in range(2)]  # the third pair was broken off
    rows = stock_stack.rows_of(records)
    assert rows[1][:6] == [own, "2", "10 (10 to 10)", "20 (20 to 20)", "2.50 (2.00 to 3.00)", "2.00 (2.00 to 2.00)"]
