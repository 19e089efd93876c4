"""`tune-rsst fetch`: what lies in a bucket comes to this home, and nowhere else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tests.azure_server import AzureServer
from tests.s3_server import S3Server
from trainables.rsst.config import ConfigError
from trainables.rsst.rounds import models_of_rounds
from trainables.storage.bucket import Bucket
from tune_rsst.ledger.lines import Place, encode
from tune_rsst.storage import bucket as storage
from tune_rsst.storage.folder import SweepFolder

LINE = {"event": "sweep", "time": 1.0, "name": "S"}


@pytest.fixture
def bucket(cloud: S3Server | AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """With a sweep S whose ledger is one line."""
    cloud.empty()
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    found = Bucket(f"{cloud.address}/group")
    found.write("S/ledger/000000000.jsonl", _line())
    return found


def _line() -> bytes:
    return encode(LINE, Place())


def outside(tmp_path: Path) -> list[Path]:
    """Files that are not below the sweep's folder."""
    home = tmp_path / "home" / "S"
    return [path for path in tmp_path.rglob("*") if path.is_file() and home not in path.parents]


def test_files_come_home(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write("S/files/settings.yaml", b"name: S")
    bucket.write("S/files/weights/w.safetensors", b"numbers")
    assert [folder.name for folder in storage.bring(bucket.address, None, print)] == ["S"]
    assert (tmp_path / "home/S/weights/w.safetensors").read_bytes() == b"numbers" and outside(tmp_path) == []


def test_what_a_console_makes_for_a_folder_is_no_file(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.empty()
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    found = {
        "ledger/000000000.jsonl": _line(),
        "files/weights/": b"",
        "files/weights/w": b"numbers",
        "files/code/": b"",
    }
    for key, data in found.items():
        s3.put(f"group/S/{key}", data)
    assert [folder.name for folder in storage.bring(f"{s3.address}/group", None, print)] == ["S"]
    assert (tmp_path / "home/S/weights/w").read_bytes() == b"numbers" and not (tmp_path / "home/S/code").exists()


@pytest.mark.parametrize("key", ["../../../escaped.txt", "../escaped.txt", "weights/../../escaped.txt", "ABSOLUTE"])
def test_a_key_that_leads_out_of_the_sweep_is_refused_in_one_line(
    s3: S3Server, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key.replace("ABSOLUTE", str(tmp_path / "escaped.txt"))
    s3.empty()
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    for name, data in {
        "ledger/000000000.jsonl": _line(),
        "files/a": b"first in order",
        f"files/{key}": b"theirs",
    }.items():
        s3.put(f"group/S/{name}", data)
    with pytest.raises(ConfigError, match=r"^storage = s3://.*refused: ") as error:
        storage.bring(f"{s3.address}/group", "S", print)
    assert key in str(error.value) and "\n" not in str(error.value)
    assert outside(tmp_path) == []
    assert not (tmp_path / "home/S/a").exists(), "nothing of such a place is taken"


@pytest.mark.parametrize("name", ["..", "../x", "S/../../x"])
def test_a_sweep_whose_name_leads_out_of_the_home_is_refused(bucket: Bucket, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"refused: {re.escape(name)}"):
        storage.bring(bucket.address, name, print)
    assert outside(tmp_path) == []


def test_a_link_in_the_sweeps_folder_is_not_followed(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "home/S").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home/S/weights").symlink_to(tmp_path / "elsewhere")
    bucket.write("S/files/weights/w.safetensors", b"theirs")
    with pytest.raises(ConfigError, match=r"refused: weights/w\.safetensors"):
        storage.bring(bucket.address, "S", print)
    assert outside(tmp_path) == []


def test_a_fingerprint_that_leads_out_of_the_sweep_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"refused: \.\./\.\./x"):
        storage.fetch_model(SweepFolder(tmp_path / "home" / "S"), bucket.address, "../../x")


def test_the_models_of_rounds_come_where_one_is_asked_for(bucket: Bucket, tmp_path: Path) -> None:
    """Also of a trial whose results are here already."""
    name = f"r001-{hashlib.sha256(b'numbers').hexdigest()[:16]}.safetensors"
    bucket.write(f"S/trials/f00/models/{name}", b"numbers")
    folder = SweepFolder(tmp_path / "home" / "S")
    folder.store("f00").mkdir(parents=True)
    (folder.store("f00") / "report.json").write_text("{}")
    storage.fetch_model(folder, bucket.address, "f00")
    assert models_of_rounds(folder.store("f00")) == {}
    storage.fetch_model(folder, bucket.address, "f00", rounds=True)
    assert models_of_rounds(folder.store("f00"))[1].read_bytes() == b"numbers"
