"""The benchmark of the training step: its rows for a GPU, with the CPU in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import _engine_gpu as gpu
from benchmarks import engine
from tests.trainables import toy
from trainables.rsst.config import models
from trainables.rsst.training import block

pytestmark = pytest.mark.medium
CPU = torch.device("cpu")


def test_every_row_for_a_gpu_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(models.NAMED, toy.NAME, toy.SHAPE)
    monkeypatch.setattr(block, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    block._program.cache_clear()
    rows = gpu.Rows(CPU, least_s=0.0, limit_s=300.0)
    gpu.measure_all(rows, (toy.NAME,), (4,), 2)
    torch._dynamo.reset()
    block._program.cache_clear()
    assert [row for row in rows.found if "failed" in row or "left_out" in row] == []
    names = [row["cell"] for row in rows.found]
    assert {*gpu.WAYS, "plain, amp", "amp, strong", "evaluate"} <= set(names)
    assert all(row["images_per_s"] > 0 for row in rows.found if row["cell"] in gpu.WAYS)
    ends = [row["of_change"] for row in rows.found if row["cell"] == "compiled against eager"]
    assert ends == [0.0, 0.0]  # aot_eager computes timm's bits
    assert len(capsys.readouterr().out.splitlines()) == len(rows.found)


def test_a_cell_that_fails_or_comes_too_late_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Any:
        raise RuntimeError("CUDA out of memory\nmore lines")

    rows = gpu.Rows(CPU, least_s=0.0, limit_s=300.0)
    rows.cell("one", broken, 1, 0.0, batch=3)
    late = gpu.Rows(CPU, least_s=0.0, limit_s=-1.0)
    late.cell("two", broken, 1, 0.0)
    assert rows.found == [{"cell": "one", "batch": 3, "failed": "RuntimeError: CUDA out of memory"}]
    assert late.found == [{"cell": "two", "left_out": "out of time"}]
    assert "RuntimeError: CUDA out of memory" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["engine", "--gpu", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit) as ended:
        engine.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "torch finds no CUDA device" in said
    assert not (tmp_path / "out.json").exists()


def test_the_rows_are_kept_however_far_it_came(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(gpu, "measure_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        gpu.on_gpu(tmp_path / "out.json")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row == {"cell": "machine", "device": "H100", "torch": torch.__version__}
