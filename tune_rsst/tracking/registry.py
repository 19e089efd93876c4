"""A trial's model in MLflow's model registry: as torch.export, without a pickle, with signature and input example.

In: a model of a trial that has a run in MLflow.
Out: models:/NAME@ALIAS, which torch and mlflow alone can load. It maps pixels (B, C, H, W) to logits; its tags say how
an image becomes pixels, and preprocessing.json beside it holds all that is known of the images.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.export.files import name_of, on_pixels
from trainables.rsst.config import ConfigError
from trainables.rsst.model.saved import PREPROCESSING
from trainables.storage.files import write_json
from trainables.storage.secrets import hide_password
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.results.commands import tune_rsst
from tune_rsst.results.export import Chosen
from tune_rsst.settings.addresses import with_passwords
from tune_rsst.tracking.reason import reason
from tune_rsst.tracking.runs import REFUSED, SweepRuns, _client
from tune_rsst.tracking.writes import MAX_TAG, text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

MODEL_NAME = re.compile(r"(?!\.{1,2}$)[^/:]{0,255}[^/:\s]")  # what MLflow takes
ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,255}", re.IGNORECASE)

ARTIFACT = "model"


def check_names(register: str, alias: str) -> None:
    """Refuse names that MLflow's registry would not take."""
    if not MODEL_NAME.fullmatch(register):
        raise ConfigError("register", repr(register), "a name without / and :, 256 characters at most")
    if not ALIAS.fullmatch(alias):
        valid = "letters, digits, _ and -, 255 at most; neither latest nor v and a number"
        raise ConfigError("alias", repr(alias), valid)


def register(chosen: Chosen, name: str, alias: str) -> str:
    """Put the trial's model into MLflow's model registry, as a version that `alias` names; its address to load it by.

    The same model again makes no second version.

    Raises:
        ConnectionError: MLflow can't be reached, or fails; one line without passwords.
    """
    check_names(name, alias)
    settings, trial, address = chosen.view.settings, chosen.trial, f"{name}@{alias}"
    uri = with_passwords(settings).get("mlflow_tracking_uri", str(settings["mlflow_tracking_uri"]))
    model, uid = on_pixels(chosen.model), LedgerTail(chosen.folder.ledger).uid()
    with _in_one_line(uri, address):
        runs = SweepRuns(uri, str(settings["mlflow_experiment"]), uid).runs
    if trial.trial not in runs:
        hint = f"upload it: {tune_rsst(chosen.folder, 'sync', chosen.folder.name)}"
        raise ConfigError("register", trial.trial, "a trial with a run in MLflow", hint)
    run_id, client, about = runs[trial.trial], _client(uri), _about(chosen)
    with _in_one_line(uri, address):
        of_run = client.search_model_versions(f"run_id = '{run_id}'")
    same = (found for found in of_run if found.name == name and found.tags.get("round") == about.get("round"))
    made = next((str(found.version) for found in same), None)
    if made is None:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / (ARTIFACT if chosen.round is None else f"{ARTIFACT}-{name_of(chosen.round)}")
            facts = chosen.model.facts
            _save(model, facts.architecture.input_shape(), about, path)
            write_json(path / PREPROCESSING, facts.preprocessing())
            with _in_one_line(uri, address):
                made = _make_version(client, name, about, run_id, path)
    with _in_one_line(uri, address):
        client.set_registered_model_alias(name, alias, made)
    return f"models:/{address}"


def _about(chosen: Chosen) -> dict[str, str]:
    """Tags of a version: what the model reaches, where it is from, what it takes."""
    reported = ("val_top1", "test_top1", "density", "params", "init_effective")
    about = {metric: text(chosen.metrics[metric]) for metric in reported if metric in chosen.metrics}
    about |= {"sweep": chosen.view.name, "trial": chosen.trial.trial, "fingerprint": chosen.trial.fingerprint}
    about |= {"round": str(chosen.round)} if chosen.round is not None else {}
    images = chosen.model.facts.images
    known = ("name", "classes", "in_chans", "img_size", "how_resized", "values", "mean", "std", "digest")
    about |= {f"images.{name}": text(images[name])[:MAX_TAG] for name in known if name in images}
    return about


@contextmanager
def _in_one_line(uri: str, address: str) -> Iterator[None]:
    """Whatever MLflow raises within, as a ConfigError (it does not take `address`) or a ConnectionError."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  stores raise what their databases and connections raise
        if getattr(error, "error_code", None) in REFUSED:
            raise ConfigError("register", address, "a name and an alias that MLflow takes", reason(error)) from None
        raise ConnectionError(f"mlflow = {hide_password(uri)}: {reason(error)}") from None


def _make_version(client: MlflowClient, name: str, about: Mapping[str, str], run_id: str, path: Path) -> str:
    """A version made of the model that is saved in the folder `path`."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.log_artifacts(run_id, str(path), path.name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{path.name}"
    return str(client.create_model_version(name, source, run_id, tags=dict(about)).version)


def _save(model: nn.Module, shape: tuple[int, int, int], about: Mapping[str, str], path: Path) -> None:
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # without names: pyfunc gives the flavor named inputs as a dict, which it refuses
    example = np.full((2, *shape), 0.5, dtype=np.float32)
    classes = model(torch.from_numpy(example)).shape[1]
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            model,
            str(path),
            signature=signature,
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "torch", "numpy")],
            metadata=dict(about),
            serialization_format="pt2",
        )
