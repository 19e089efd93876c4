"""`tune-rsst example`: files to start from, for clusters and images. They lie in the package, so that a wheel has them.

In: a file's name, with or without its ending. Out: its text. In the repository `examples/` holds links to the files,
each of which is in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from trainables.rsst.config import ConfigError

WHAT = {
    "cluster.yaml": "a Ray cluster on AWS, for `ray up`",
    "on_prem.yaml": "a Ray cluster of machines of your own, for `ray up`",
    "rayjob.yaml": "a sweep as a KubeRay job, for `kubectl apply`",
    "runtime_env.yaml": "the environment of `ray job submit`",
    "slurm.sbatch": "a sweep as one Slurm job that goes on after its time limit, for `sbatch`",
    "Dockerfile": "an image with everything, for `docker build` in a checkout",
}


def text(name: str) -> str:
    """The file of that name: slurm, slurm.sbatch, dockerfile, …"""
    found = [file for file in WHAT if name.casefold() in (file.casefold(), file.partition(".")[0].casefold())]
    if not found:
        raise ConfigError("example", name, ", ".join(WHAT), "tune-rsst example says what each is for")
    return (files("tune_rsst") / "examples" / found[0]).read_text(encoding="utf-8")


def lines() -> Iterator[str]:
    """Each file and what it is for."""
    for file, what in WHAT.items():
        yield f"{file:<18}{what}"
