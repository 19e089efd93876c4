"""Scripts that print this project's figures; README.md lists what prints what."""
