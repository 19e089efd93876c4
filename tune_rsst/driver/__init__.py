"""Who decides which run comes next and when one ends: for trials sweep.py, for repeated ones confirm.py. No Ray."""

from tune_rsst.driver.confirm import Confirmation as Confirmation
from tune_rsst.driver.sweep import Driver as Driver
from tune_rsst.driver.sweep import assemble as assemble
