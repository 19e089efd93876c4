"""The truth of a sweep: an append-only file of events, and what it says."""
