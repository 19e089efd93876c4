"""cluster.yaml is what Ray's own schema asks for, and pins what constraints.txt pins."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

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
