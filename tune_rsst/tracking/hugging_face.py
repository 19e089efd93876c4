"""An export in a repository of the Hugging Face hub, with its model card.

In: files of an export. Out: a commit in ORG/NAME, or one line that says why there is none.
The token is the user's own (`hf auth login`, HF_TOKEN): it is neither read nor kept here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from trainables.rsst.config import ConfigError
from trainables.rsst.model.saved import REPORT
from tune_rsst.tracking.model_card import CARD

ANSWER_S = 60.0  # of one request; the library asks again some times


def check_push(name: str) -> None:
    """Refuse before any work what can't be pushed: a bad name, no token, a hub that is away or does not know it."""
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError("push", name, "ORG/NAME of a repository of the Hugging Face hub", str(error)) from None
    if name.count("/") != 1:
        raise ConfigError("push", name, "ORG/NAME of a repository of the Hugging Face hub")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("push", name, "left out while HF_HUB_OFFLINE is set")
    if not get_token():
        raise ConfigError("push", name, "given with a token of the hub", "type `hf auth login`, or set HF_TOKEN")
    _be_bounded()
    try:
        HfApi().whoami()
    except Exception as error:  # noqa: BLE001  the hub's errors, the network's, the client's
        raise ConfigError("push", name, "a hub that answers and knows the token", _reason(error)) from None


def push(name: str, written: Iterable[Path], *, private: bool, message: str) -> str:
    """Put the files that an export wrote into repository `name`, made if it is missing; its address.

    All but report.json, which names folders and machines. A private repository stays so, a public one too.

    Raises:
        ConnectionError: the hub refused, or was not reached; one line.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    _be_bounded()
    if not sys.stderr.isatty():
        disable_progress_bars()
    files = [path for path in written if path.name != REPORT]
    try:
        api = HfApi()
        api.create_repo(name, private=private or None, exist_ok=True)
        adding = [CommitOperationAdd("README.md" if path.name == CARD else path.name, path) for path in files]
        commit = api.create_commit(name, adding, commit_message=message)
    except Exception as error:  # noqa: BLE001  the hub's errors, the network's, the client's
        raise ConnectionError(f"push = {name}: {_reason(error)}") from None
    return str(commit.commit_url)


def _be_bounded() -> None:
    """No request waits for ever; the library sets no limit of its own."""
    from huggingface_hub.utils import get_session

    get_session().timeout = ANSWER_S


def _reason(error: Exception) -> str:
    """The line that says most, without the request's number."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Request ID" not in line]
    return " ".join(lines[:2]) or type(error).__name__
