"""Which units go, how they are pressed towards zero, and how they are removed."""
