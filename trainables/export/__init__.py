"""A trained model to take away. `tune-rsst export` and `python -m trainables.export` are the same: files.py."""
