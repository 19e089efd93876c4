"""Do the trials of a sweep share one copy of the data? 8 concurrent Ray trials on 50,000 + 10,000 images.

Writes an archive in CIFAR-10's own format (random pixels, real numbers of images), starts `tune-rsst sweep` on it with
8 trials at a time on a local Ray, waits until all 8 workers train, and reads /proc/PID/smaps of each: Pss counts a page
that n processes map as 1/n, so the Pss of the mapped set summed over the workers is the number of copies on the node.
What a worker holds of its own (anonymous memory) stands beside that of a sweep on the small digits set: a private copy
would show there. The sweeps are interrupted once measured.

    python -m benchmarks.sweep_memory [--trials 8]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._common import table
from tests.trainables.rsst.data.cifar_format import make_archive

START_S, SETTLE_S, STOP_S, SETTLED = 360.0, 10.0, 90.0, 0.01
WORKER = b"ray::SweepTrainable"
# Every worker must take our archive for CIFAR-10's: its checksums are put in place before anything is imported.
PATCH = """
import json, os, sys
if any("default_worker" in word or word.endswith("tune_rsst") for word in sys.orig_argv):
    from torchvision.datasets import CIFAR10
    from trainables.rsst.data import cifar
    cifar.CLASSES["cifar10"] = type("Ours", (CIFAR10,), json.load(open(os.environ["OUR_CIFAR"])))
"""


def workers() -> list[int]:
    """Process ids of Ray actors that run a trial."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes().startswith(WORKER):
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)


def memory_mib(pid: int, folder: str) -> tuple[float, float]:
    """(Pss of files mapped from below `folder`, anonymous memory of its own) in MiB."""
    shared = own = 0.0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if " " in name:  # a mapping's first line: addresses, rights, offset, device, inode, path
            inside = folder in line
        elif name == "Pss" and inside:
            shared += float(rest.split()[0]) / 1024
        elif name == "Anonymous":
            own += float(rest.split()[0]) / 1024
    return shared, own


def measure(folder: Path, count: int, name: str, words: list[str]) -> list[tuple[int, float, float]]:
    """Per worker of a sweep: (pid, Pss of the mapped set, anonymous memory) in MiB.

    Raises:
        RuntimeError: the sweep did not get `count` workers to train.
    """
    command = [sys.executable, "-m", "tune_rsst", "sweep", f"name={name}", f"trials={count}", "stopping=none"]
    command += [f"max_concurrent_trials={count}", "cpus_per_trial=0.125", "arch=vit_digits", *words]
    log = folder / f"{name}.log"
    before = set(workers())
    with log.open("w") as out:
        sweep = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_S
        while len(here := [pid for pid in workers() if pid not in before]) < count:
            if sweep.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{len(here)} of {count} workers: {log.read_text()[-2000:]}")
            time.sleep(0.5)
        while True:  # until all hold their data and none grows any more
            earlier = [memory_mib(pid, "prepared") for pid in here]
            time.sleep(SETTLE_S)
            now = [memory_mib(pid, "prepared") for pid in here]
            mapped = not words[0].endswith("cifar10") or all(shared > 0 for shared, _ in now)
            grown = sum(own for _, own in now) / sum(own for _, own in earlier) - 1
            if mapped and grown < SETTLED:
                return [(pid, *sizes) for pid, sizes in zip(here, now, strict=True)]
            if time.monotonic() > deadline:
                raise RuntimeError(f"the workers still grow by {grown:.1%}: {log.read_text()[-2000:]}")
    finally:
        if sweep.poll() is None:
            sweep.send_signal(signal.SIGINT)
            sweep.wait(STOP_S)


def main() -> None:
    """Run both sweeps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    count = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = make_archive(folder, per_batch=10_000)
        told = {key: value for key, value in vars(ours).items() if not key.startswith("__")}
        (folder / "ours.json").write_text(json.dumps(told))
        (folder / "sitecustomize.py").write_text(PATCH)
        paths = os.pathsep.join([name, str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        os.environ |= {"PYTHONPATH": paths, "OUR_CIFAR": str(folder / "ours.json"), "TUNE_RSST_HOME": f"{name}/home"}
        os.environ["TUNE_RSST_CACHE"] = f"{name}/cache"
        digits = measure(folder, count, "digits", ["epochs=60"])
        cifar = measure(folder, count, "cifar", ["dataset=cifar10", f"data={name}", "epochs=4", "warmup=0"])
        arrays = [path.stat().st_size for path in (folder / "cache" / "prepared").rglob("*") if path.is_file()]
    rows = [
        [i, *(f"{figure:.0f}" for figure in (small[1], small[2], large[1], large[2]))]
        for i, (small, large) in enumerate(zip(digits, cifar, strict=True))
    ]
    head = ["worker", "digits: set, Pss MiB", "its own MiB", "cifar10: set, Pss MiB", "its own MiB"]
    print(table(head, rows))
    held, mapped = sum(arrays) / 2**20, sum(row[1] for row in cifar)
    more = sum(large[2] for large in cifar) - sum(small[2] for small in digits)
    print(f"\nprepared sets on disk: {held:.0f} MiB; {count} private copies would be {count * held:.0f} MiB")
    print(f"mapped by {len(cifar)} workers together: {mapped:.0f} MiB ({mapped / held:.2f} copies)")
    print(f"of their own, all workers: {more:+.0f} MiB against the digits sweep ({more / held:+.2f} copies)")


if __name__ == "__main__":
    main()
