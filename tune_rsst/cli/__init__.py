"""The command line: `tune-rsst` and its commands."""
