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
