"""Bytes that survive a crash: files, locks, buckets, actions that are tried again, addresses without passwords."""
