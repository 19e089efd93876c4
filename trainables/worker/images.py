"""The images of a process that runs many trials: loaded once while the trials want the same ones.

In: a trial's config. Out: its `ImageData`.
"""

from __future__ import annotations

from typing import Any

from trainables.rsst.config import KNOBS, RSSTConfig
from trainables.rsst.data.load import ImageData, load, split_seed

DATA_KNOBS = tuple(name for name, knob in KNOBS.items() if knob.of_the_images and name not in ("seed", "split_seed"))


class KeptImages:
    """The images of the last trial; the next one takes them where it wants the same."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[Any, ...], ImageData] | None = None

    def of(self, config: RSSTConfig) -> ImageData:
        """The images that `config` asks for."""
        wanted = (split_seed(config), *(getattr(config, name) for name in DATA_KNOBS))
        if self._kept is None or self._kept[0] != wanted:
            self._kept = (wanted, load(config))
        return self._kept[1]
