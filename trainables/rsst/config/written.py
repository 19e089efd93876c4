"""The knobs of a trial as a file has them: its folder's config.json, or one of the user's.

In: the file. Out: knobs by name, exactly as they were written, for `RSSTConfig.from_knobs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.errors import ConfigError
from trainables.storage.forms import WrongForm, either, flag, mapping, maybe, number, text
from trainables.storage.state_files import CRC, read_state

SMALL = 1 << 20
KNOBS_BY_NAME = mapping(maybe(either(flag, number, text(most=10_000))), keys=r"[A-Za-z][A-Za-z0-9_]{1,60}")


def read_config(path: Path) -> dict[str, Any]:
    """The knobs in a config.json, without its checksum; files of earlier versions had none.

    Raises:
        OSError: it can't be read, or is no regular file.
        WrongForm: it is not what was written.
    """
    found: dict[str, Any] = read_state(path, KNOBS_BY_NAME, seal="may", most=SMALL)
    if missing := {"arch", "dataset"} - found.keys():
        raise WrongForm(f"{min(missing)} is missing")
    return found


def config_in(folder: Path) -> dict[str, Any] | None:
    """The knobs of the trial that `folder` holds; None where it holds none."""
    try:
        return read_config(folder / "config.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = f"{reason}; use another one, or put the file back (its checkpoints are below {folder / 'state'})"
        raise ConfigError("save_dir", folder, "a folder whose config.json can be read", hint) from None


def knobs_in_file(path: str) -> dict[str, Any]:
    """The knobs in a YAML or JSON file of the user's, such as best.yaml."""
    from trainables.plain_yaml import YamlError, mapping_in

    try:
        read = mapping_in(Path(path))
    except OSError as error:
        raise ConfigError("config", path, f"a YAML or JSON file that can be read ({error.strerror})") from None
    except YamlError as error:
        raise ConfigError("config", path, "a YAML or JSON file of knobs", str(error)) from None
    read.pop(CRC, None)  # a run's config.json
    weights = Path(str(read.get("weights")))
    beside = Path(path).absolute().parent / "weights" / weights.name
    if read.get("weights") and not weights.exists() and beside.is_file():  # a sweep's best.yaml, moved with its home
        read["weights"] = str(beside)
    return read
