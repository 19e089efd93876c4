"""Seeds for everything random, each derived from the trial's seed and what it is for.

Nothing random carries a state from one step to the next, so a resumed trial draws what an uninterrupted one draws.
"""

from __future__ import annotations

import hashlib

import torch


def derived(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: sha256 over seed and purpose, the same on every platform."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator seeded with `derived`."""
    return torch.Generator().manual_seed(derived(seed, *purpose))
