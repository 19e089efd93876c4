"""What all adapters from Ray Tune to the driver have in common: a guard, and an empty pickle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tune_rsst.interrupt import why

if TYPE_CHECKING:
    from tune_rsst.intake import Intake

log = logging.getLogger(__name__)


class Adapter:
    """The driver, a guard around it, an empty pickle."""

    driver: Intake

    def guarded(self, action: Callable[[], Any], otherwise: Any = None) -> Any:
        """`action()`; where it raises, the sweep is stopped and `otherwise` returned."""
        if self.driver.interruption.broken:
            return otherwise
        try:
            return action()
        except Exception as error:
            log.debug("the driver failed", exc_info=True)
            self.driver.interruption.break_off(why(error))
            return otherwise

    def __getstate__(self) -> dict[str, Any]:
        return {}
