"""Runs that repeat a trial with other seeds: which ones there are to be, and what the numbers of several runs tell."""
