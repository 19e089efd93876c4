"""The ways in: the command line, `tune-rsst` and its commands, and the same from Python (api.py)."""
