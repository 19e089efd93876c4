"""The Hugging Face hub: a cached weights file, or one bounded question to the hub.

In: a timm model name, or the name of a repository.
Out: the path of its weights file in the hub's own cache, or why there is none. huggingface_hub retries for 47 s when a
    network is gone, and waits for ever on a server that accepts and never answers.
So a child process asks once, and is ended when no answer came in ASK_S, or no byte more in STALL_S during a download.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainables.errors import ConfigError
from trainables.progress import teller

ASK_S = 9.0  # from the question to the answer, start of the child included
STALL_S = 30.0  # a download may take as long as it likes while bytes come in
FILE_NAMES = ("model.safetensors", "pytorch_model.bin")  # cached ones; only the first is ever downloaded

# asks where the file is (once: without the client's retries), then downloads it and prints its path
_CHILD = """
import sys
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
repository, name, seconds, revision = sys.argv[1:]
try:
    get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), timeout=float(seconds))
    print(hf_hub_download(repository, name, revision=revision))
except Exception as error:
    print(type(error).__name__ + ": " + (str(error).strip().splitlines() or [""])[0], file=sys.stderr)
    sys.exit(1)
"""


_WORD = r"[A-Za-z0-9_][\w.-]{0,95}"  # of a repository's name or a revision; never a way out of the cache's folder
NAME = re.compile(rf"hf[-_]hub:(?P<repository>{_WORD}/{_WORD})(?:@(?P<revision>{_WORD}(?:/{_WORD}){{0,8}}))?", re.ASCII)
MAIN = "main"


@dataclass(frozen=True)
class HubFile:
    """`path` of the file, or None and the reason in `problem`. `repository` is None where timm knows no weights."""

    repository: str | None
    path: Path | None
    problem: str = ""

    @property
    def name(self) -> str:
        """What names this file and no later one: hf_hub:ORG/NAME@COMMIT."""
        return f"hf_hub:{self.repository}@{self.path.parent.name}" if self.path else f"hf_hub:{self.repository}"


def is_hub_name(weights: str) -> bool:
    """Whether `weights` begins as the name of a repository does, not as a path."""
    return weights.startswith(("hf_hub:", "hf-hub:"))


def fetch_named(weights: str) -> HubFile:
    """The file of hf_hub:ORG/NAME, or of hf_hub:ORG/NAME@REVISION; a ConfigError says why there is none."""
    found = NAME.fullmatch(weights)
    if found is None or "--" in found["repository"] or ".." in weights:  # the hub's own rule
        raise ConfigError("weights", weights, "hf_hub:ORG/NAME or hf_hub:ORG/NAME@REVISION, for the hub")
    file = _fetch(found["repository"], found["revision"] or MAIN)
    if file.path is None:
        hint = f"{file.problem}; private ones need `hf auth login` or HF_TOKEN"
        raise ConfigError("weights", weights, f"a repository of the hub with {FILE_NAMES[0]} in it", hint)
    return file


def fetch(timm_name: str) -> HubFile:
    """The weights file of `timm_name`: from the cache without asking anyone, else downloaded once. Raises nothing."""
    repository = _repository(timm_name)
    if repository is None:
        return HubFile(None, None, f"timm has no pretrained weights for {timm_name or 'this model'}")
    return _fetch(repository, MAIN)


def _fetch(repository: str, revision: str) -> HubFile:
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:
        return HubFile(repository, None, "huggingface_hub is not installed (pip install huggingface_hub)")
    for name in FILE_NAMES:
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return HubFile(repository, Path(cached))
    if constants.HF_HUB_OFFLINE:
        return HubFile(repository, None, f"{repository} is not in the cache and HF_HUB_OFFLINE is set")
    return _download(repository, revision, Path(constants.HF_HUB_CACHE))


def _repository(timm_name: str) -> str | None:
    """Where timm keeps the weights of this name; for a name that timm has renamed, of its new one."""
    import timm
    import torch
    from timm.models import get_pretrained_cfg

    try:
        known: Any = get_pretrained_cfg(timm_name)
        if known is None and timm.is_model(timm_name):  # an old name: the model that it stands for knows
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known = SimpleNamespace(**timm.create_model(timm_name).pretrained_cfg)
    except RuntimeError:  # no such tag
        return None
    return str(known.hf_hub_id) if known is not None and known.hf_hub_id else None


def _download(repository: str, revision: str, cache: Path) -> HubFile:
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, repository, FILE_NAMES[0], str(ASK_S - 2.0), revision],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=os.environ | quiet,
    )
    try:
        stopped = _watch(child, cache / f"models--{repository.replace('/', '--')}")
    finally:
        if child.poll() is None:
            child.kill()
        said, errors = child.communicate()
    if child.returncode == 0:
        return HubFile(repository, Path(said.strip().splitlines()[-1]))
    problem = stopped or (errors.strip().splitlines() or ["no answer"])[-1]
    return HubFile(repository, None, f"{repository}: {problem}")


def _watch(child: subprocess.Popen[str], folder: Path) -> str:
    """Wait for the child; the reason to end it, or "" when it ended by itself.

    A download shows as growth of what lies below `folder`, the repository's place in the cache.
    """
    answered, size, since = False, _size(folder), time.monotonic()
    tell, before = teller("downloading the weights", 0, "bytes"), size
    while True:
        try:
            child.wait(timeout=0.1)
            return ""
        except subprocess.TimeoutExpired:
            now = _size(folder)
        if now != size:
            answered, size, since = True, now, time.monotonic()
            tell(max(0, size - before))
        elif time.monotonic() - since > (STALL_S if answered else ASK_S):
            return f"the download stood still for {STALL_S:.0f} s" if answered else f"no answer in {ASK_S:.0f} s"


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in (folder / "blobs").iterdir())
    except OSError:
        return 0
