"""Weights and data through the command line: what a user of single-GPU mode gets, records included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file

from tests.trainables.rsst.data.test_folder import write_pngs
from trainables.__main__ import main
from trainables.rsst.config import RSSTConfig, models
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from trainables.rsst.model.weight_files import digest_of
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.tracking.following import Follower

SHORT = ["--epochs", "2", "--warmup", "1", "--pruning_times", "2", "--rate", "0.3", "--device", "cpu"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def test_a_folder_of_pngs_trains_end_to_end(tmp_path: Path) -> None:
    folder = write_pngs(tmp_path / "pngs", 500, 5)
    flags = ["--dataset", "folder", "--data", str(folder), "--img_size", "8", "--arch", "vit_digits", *SHORT]
    flags += ["--lr", "2e-3", "--epochs", "6", "--batch_size", "32", "--augment", "none"]
    assert main([*flags, "--save_dir", str(tmp_path / "run")]) == 0
    report = report_of(tmp_path / "run")
    assert report["config"]["dataset"] == "folder" and len(report["rounds"]) == 2
    assert report["rounds"][-1]["kept_share"] < 0.75
    assert report["test_top1"] > 0.5  # chance is 0.2


def test_a_bad_folder_is_one_line_and_exit_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = next(write_pngs(tmp_path / "pngs", 60, 3).rglob("*.png"))
    broken.write_bytes(b"no")
    flags = ["--dataset", "folder", "--data", str(tmp_path / "pngs"), "--arch", "vit_digits", *SHORT]
    assert main([*flags, "--save_dir", str(tmp_path / "run")]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and broken.name in lines[0] and lines[0].startswith("error: data = ")


@pytest.fixture
def unreachable_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, a port where nobody listens, and a small arch that has weights on the hub."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(models.NAMED, "vit_digits", (64, 4, 4, 2.0, "vit_small_patch16_224"))


@pytest.mark.medium
@pytest.mark.usefixtures("unreachable_hub")
def test_without_hub_and_cache_a_single_run_falls_back_and_every_record_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", "digits", "--pretrained", *SHORT, "--save_dir", str(tmp_path / "run")]) == 0
    shown = capfd.readouterr()
    assert "✗ 未能获取预训练权重，使用随机初始化" in shown.out and "✓ 成功加载预训练权重" not in shown.out
    assert "RANDOM weights" in shown.err and shown.err.count("!!!!!!!!!!") >= 2
    report = report_of(tmp_path / "run")
    assert report["init_effective"] == report["final"]["init_effective"] == "scratch"
    assert report["weights_digest"] is None and report["config"]["pretrained"] is True
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "WARNING" in log and "scratch" in log
    tracked = Follower(tmp_path / "run", sqlite_uri(tmp_path), "alone", None)
    tracked.step()
    record = MlflowClient(sqlite_uri(tmp_path)).get_run(tracked.run_id).data
    assert record.tags["init_effective"] == "scratch" and "weights_digest" not in record.tags


@pytest.mark.usefixtures("unreachable_hub")
def test_strict_refuses_to_fall_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--dataset", "digits", "--pretrained", "--strict", *SHORT, "--save_dir", str(tmp_path / "run")]
    assert main(flags) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and lines[0].startswith("error: pretrained = True")
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_weights_file_is_recorded_with_its_digest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = RSSTConfig.from_knobs({"dataset": "digits", "img_size": 16})
    torch.manual_seed(5)
    tensors = build(architecture(config, in_chans=3, num_classes=7)).state_dict()
    save_file(tensors, tmp_path / "mine.safetensors")
    flags = ["--dataset", "digits", "--pretrained", "--weights", str(tmp_path / "mine.safetensors"), *SHORT]
    assert main([*flags, "--save_dir", str(tmp_path / "run")]) == 0
    assert "✓ 成功加载预训练权重" in capfd.readouterr().out
    report = report_of(tmp_path / "run")
    assert report["init_effective"] == "pretrained" and report["weights_digest"] == digest_of(tensors)
