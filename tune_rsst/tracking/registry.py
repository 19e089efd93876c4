"""A trial's model in MLflow's model registry: as torch.export, without a pickle, with signature and input example.

Comes in: a model on pixels and the trial's run. Goes out: models:/NAME@ALIAS, which torch and mlflow alone can load.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import ConfigError
from trainables.storage.secrets import hide_password
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.results.commands import tune_rsst
from tune_rsst.settings.addresses import with_passwords
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.reason import reason
from tune_rsst.tracking.runs import REFUSED, SweepRuns, _client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn
import re
from importlib.metadata import version

from tune_rsst.results.export import Chosen, input_shape, with_normalisation

MODEL_NAME = re.compile(r"(?!\.{1,2}$)[^/:]{0,255}[^/:\s]")  # what MLflow takes
ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,255}", re.IGNORECASE)

ARTIFACT = "model"


@dataclass(frozen=True)
class Registration:
    """What is registered: `model` maps pixels (B, C, H, W) to logits, `shape` is (C, H, W), `about` become tags."""

    name: str
    alias: str
    model: nn.Module
    shape: tuple[int, int, int]
    about: Mapping[str, str]
    packages: list[str]


def register_model(folder: SweepFolder, settings: Mapping[str, Any], trial: str, wanted: Registration) -> str:
    """Upload the model into the trial's run, make a version of it and point the alias there; the address to load.

    The same trial again makes no second version.

    Raises:
        ConnectionError: MLflow can't be reached, or fails; one line without passwords.
    """
    uri = with_passwords(settings).get("mlflow_tracking_uri", str(settings["mlflow_tracking_uri"]))
    uid, address = LedgerTail(folder.ledger).uid(), f"{wanted.name}@{wanted.alias}"
    with _in_one_line(uri, address):
        runs = SweepRuns(uri, str(settings["mlflow_experiment"]), uid)
    if trial not in runs.runs:
        hint = f"upload it: {tune_rsst(folder, 'sync', folder.name)}"
        raise ConfigError("register", trial, "a trial with a run in MLflow", hint)
    run_id, client = runs.runs[trial], _client(uri)
    with _in_one_line(uri, address):
        version = _version_of(client, wanted.name, run_id)
    with tempfile.TemporaryDirectory() as temporary:
        if version is None:
            path = Path(temporary) / ARTIFACT
            _save(wanted, path)
            with _in_one_line(uri, address):
                version = _make_version(client, wanted, run_id, path)
    with _in_one_line(uri, address):
        client.set_registered_model_alias(wanted.name, wanted.alias, version)
    return f"models:/{address}"


@contextmanager
def _in_one_line(uri: str, address: str) -> Iterator[None]:
    """Whatever MLflow raises within, as a ConfigError (it does not take `address`) or a ConnectionError."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  stores raise what their databases and connections raise
        if getattr(error, "error_code", None) in REFUSED:
            raise ConfigError("register", address, "a name and an alias that MLflow takes", reason(error)) from None
        raise ConnectionError(f"mlflow = {hide_password(uri)}: {reason(error)}") from None


def _version_of(client: MlflowClient, name: str, run_id: str) -> str | None:
    """The version that was made of this run before."""
    for found in client.search_model_versions(f"run_id = '{run_id}'"):
        if found.name == name:
            return str(found.version)
    return None


def _make_version(client: MlflowClient, wanted: Registration, run_id: str, path: Path) -> str:
    """A version made of the model that is saved in the folder `path`."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(wanted.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.log_artifacts(run_id, str(path), ARTIFACT)
    source = f"{client.get_run(run_id).info.artifact_uri}/{ARTIFACT}"
    made = client.create_model_version(wanted.name, source, run_id, tags=dict(wanted.about))
    return str(made.version)


def _save(wanted: Registration, path: Path) -> None:
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # without names: pyfunc gives the flavor named inputs as a dict, which it refuses
    example = np.full((2, *wanted.shape), 0.5, dtype=np.float32)
    classes = wanted.model(_tensor(example)).shape[1]
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *wanted.shape))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            wanted.model,
            str(path),
            signature=signature,
            input_example=example,
            pip_requirements=wanted.packages,
            metadata=dict(wanted.about),
            serialization_format="pt2",
        )


def _tensor(example: Any) -> Any:
    import torch

    return torch.from_numpy(example)


def check_names(register: str, alias: str) -> None:
    """Refuse names that MLflow's registry would not take."""
    if not MODEL_NAME.fullmatch(register):
        raise ConfigError("register", repr(register), "a name without / and :, 256 characters at most")
    if not ALIAS.fullmatch(alias):
        valid = "letters, digits, _ and -, 255 at most; neither latest nor v and a number"
        raise ConfigError("alias", repr(alias), valid)


def register(chosen: Chosen, name: str, alias: str) -> str:
    """Put the trial's model into MLflow's model registry; returns its address, models:/NAME@ALIAS.

    Raises:
        ConnectionError: MLflow can't be reached, or fails; one line.
    """
    check_names(name, alias)

    m = chosen.trial.metrics
    told = ("val_top1", "test_top1", "density", "params", "init_effective")
    about: dict[str, str] = {name: str(m[name]) for name in told if name in m}
    about |= {"sweep": chosen.view.name, "trial": chosen.trial.trial, "fingerprint": chosen.trial.fingerprint}
    packages = [f"{package}=={version(package)}" for package in ("mlflow", "torch", "numpy")]
    wanted = Registration(name, alias, with_normalisation(chosen), input_shape(chosen), about, packages)
    return register_model(chosen.folder, chosen.view.settings, chosen.trial.trial, wanted)
