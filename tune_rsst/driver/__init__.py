"""Who decides which run comes next and when one ends: for the trials of a sweep sweep.py. No Ray in here."""

from tune_rsst.driver.sweep import Driver as Driver
from tune_rsst.driver.sweep import assemble as assemble
