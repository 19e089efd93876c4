"""cluster.yaml is what Ray's own schema asks for, and pins what constraints.txt pins; the examples are in the wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tune_rsst.cli import app, examples

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found = find_spec("ray")
    assert found is not None and found.origin is not None
    return dict(json.loads((Path(found.origin).parent / "autoscaler" / "ray-schema.json").read_text()))


def test_the_cluster_fits_rays_schema(cluster: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "idle_timeout": 5}, schema)


def test_image_and_constraints_name_the_same_ray(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray(?:\[.*\])?==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"ray:{pinned[1]}-" in cluster["docker"]["image"]


def test_every_node_uses_the_token_and_the_shared_home(cluster: dict[str, Any]) -> None:
    for command in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = [line for line in cluster[command] if "ray start" in line]
        assert len(start) == 1
        assert "RAY_AUTH_MODE=token" in start[0]
        assert "TUNE_RSST_HOME=/mnt/rsst/" in start[0]


def test_gpu_workers_are_spot_and_go_when_idle(cluster: dict[str, Any]) -> None:
    worker = cluster["available_node_types"]["gpu_worker"]
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert worker["min_workers"] == 0
    assert cluster["idle_timeout_minutes"] > 0


def test_the_cluster_of_ones_own_machines_fits_rays_schema_too(schema: dict[str, Any]) -> None:
    own = yaml.safe_load((ROOT / "docs" / "cluster" / "on_prem.yaml").read_text())
    jsonschema.validate(own, schema)
    for command in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in own[command][-1] and "TUNE_RSST_HOME=/mnt/rsst/" in own[command][-1]


def test_the_rayjob_mounts_its_home_on_every_node_and_names_the_pinned_ray() -> None:
    job = yaml.safe_load((ROOT / "docs" / "cluster" / "rayjob.yaml").read_text())["spec"]
    cluster = job["rayClusterSpec"]
    pinned = re.search(r"^ray(?:\[.*\])?==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None and cluster["rayVersion"] == pinned[1]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"].endswith(f"ray-{pinned[1]}")
        (home,) = [e["value"] for e in container["env"] if e["name"] == "TUNE_RSST_HOME"]
        (mount,) = container["volumeMounts"]
        assert home.startswith(mount["mountPath"] + "/") and mount["name"] == pod["volumes"][0]["name"]


def test_the_runtime_env_is_one_that_ray_takes() -> None:
    from ray.runtime_env import RuntimeEnv

    given = yaml.safe_load((ROOT / "docs" / "cluster" / "runtime_env.yaml").read_text())
    assert RuntimeEnv(**given)["env_vars"]["TUNE_RSST_HOME"].startswith("/mnt/")


def test_every_tune_rsst_command_of_the_cluster_guide_has_the_words_it_uses() -> None:
    """The guide's commands name commands, options and settings that exist."""
    from typer.main import get_command

    from trainables.rsst.config import KNOBS
    from tune_rsst.cli.app import app
    from tune_rsst.settings.settings import settings_names

    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = (ROOT / "docs" / "cluster.md").read_text() + (ROOT / "docs" / "cluster" / "rayjob.yaml").read_text()
    found = re.findall(r"tune-rsst (sweep|show|report|export|doctor)((?: [^\s#`]+)*)", text)
    assert len(found) >= 8
    for name, rest in found:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        for word in rest.split():
            if word.startswith("--"):
                assert word in known, f"{name} {word}"
            elif "=" in word:
                assert word.partition("=")[0] in {*settings_names(), *KNOBS}, word


def test_the_wheel_has_every_example_as_the_repository_has_it(tmp_path: Path) -> None:
    """In the repository an example is a link, so that each file is in one place."""
    for name in ("tune_rsst", "trainables", "search_spaces", "docs/cluster"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cluster.yaml", "Dockerfile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('out'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "out" / done.stdout.split()[-1]) as wheel:
        packed = {Path(name).name: wheel.read(name).decode() for name in wheel.namelist() if "/examples/" in name}
    assert packed == {name: examples.text(name) for name in examples.WHAT}
    links = {path.name: path.resolve() for path in (ROOT / "tune_rsst" / "examples").iterdir() if path.is_symlink()}
    assert links.keys() == packed.keys() and links["cluster.yaml"] == ROOT / "cluster.yaml"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["slurm"], 0, "#SBATCH --requeue"),
        (["slurm.sbatch"], 0, "#SBATCH --requeue"),
        (["RayJob"], 0, "kind: RayJob"),
        (["dockerfile"], 0, "FROM rayproject/ray"),
        (["cluster.yaml"], 0, "provider:"),
        ([], 0, "slurm.sbatch      a sweep"),
        (["pbs"], 2, "example = pbs: valid is cluster.yaml, "),
        (["../cluster.yaml"], 2, "valid is cluster.yaml, "),
        ([""], 2, "valid is cluster.yaml, "),
    ],
)
def test_an_example_is_printed_by_its_name(
    words: list[str], code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tune-rsst", "example", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    said = capsys.readouterr()
    assert ended.value.code == code and says in (said.err if code else said.out)


def test_the_image_has_the_pinned_ray_and_what_is_installed_in_it() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    pinned = re.search(r"^ray(?:\[.*\])?==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None and f"FROM rayproject/ray:{pinned[1]}-py311-gpu" in lines
    left_out = (ROOT / ".dockerignore").read_text().split()
    needed = {Path(os.path.relpath(path.resolve(), ROOT)) for path in (ROOT / "tune_rsst" / "examples").iterdir()}
    assert not [
        path for path in needed | {Path("constraints.txt")} if {str(path), *map(str, path.parents)} & {*left_out}
    ]
