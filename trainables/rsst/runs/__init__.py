"""One trial alone, from its first step to its end, with its results in a folder."""
