"""Do trials on one node share one copy of the data? Proportional set size of 8 processes on 50,000 + 10,000 images.

Writes an archive in CIFAR-10's own format (random pixels, real numbers of images), lets 8 processes load it as trials
do, at once and with an empty cache, and reads /proc/PID/smaps_rollup: Pss counts a page that n processes map as 1/n.
Each process reads all training images once and takes normalised batches, as training does.

    python -m benchmarks.data_memory [--processes 8]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import table
from tests.trainables.rsst.data.cifar_format import make_archive
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data import cifar
from trainables.rsst.data.batches import on_device
from trainables.rsst.data.load import load

MIB = 2**20


def pss_mib() -> dict[str, float]:
    """This process's proportional and resident set size, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: float(rest.split()[0]) / 1024 for name, rest in (line.split(":", 1) for line in lines)}
    return {"pss": sizes["Pss"], "rss": sizes["Rss"], "pss_file": sizes["Pss_File"]}


def trial(folder: str, barrier: Any, results: Any) -> None:
    """One process: load as a trial does, touch everything, measure while all processes hold their data."""
    torch.set_num_threads(1)
    barrier.wait()
    before = pss_mib()
    barrier.wait()
    began = time.perf_counter()
    data = load(RSSTConfig.from_knobs({"dataset": "cifar10", "data": folder}))
    seconds = time.perf_counter() - began
    images = on_device(data, torch.device("cpu"))
    for index in torch.arange(len(images.train)).split(64):
        images.batch(images.train[index])
    barrier.wait()
    after = pss_mib()
    barrier.wait()
    tensors = [t for split in (data.train, data.val, data.test) for t in (split.images, split.labels)]
    held = sum(t.numel() * t.element_size() for t in tensors) / MIB
    results.put({"digest": data.digest, "seconds": seconds, "held": held, "before": before, "after": after})


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    count = parser.parse_args().processes
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUNE_RSST_CACHE"] = str(Path(folder) / "cache")
        cifar.CLASSES["cifar10"] = make_archive(Path(folder), per_batch=10_000)
        context = multiprocessing.get_context("fork")  # the processes take over our archive's checksum
        barrier, results = context.Barrier(count), context.Queue()
        processes = [context.Process(target=trial, args=(folder, barrier, results)) for _ in range(count)]
        for process in processes:
            process.start()
        found = [results.get(timeout=500) for _ in processes]
        for process in processes:
            process.join()
    held = found[0]["held"]
    rows = []
    for i, one in enumerate(found):
        grown = {name: one["after"][name] - one["before"][name] for name in ("pss", "pss_file")}
        figures = (one["after"]["rss"], one["after"]["pss"], grown["pss"], grown["pss_file"])
        rows.append([i, f"{one['seconds']:.1f}", *(f"{figure:.0f}" for figure in figures)])
    sums = {name: sum(one["after"][name] - one["before"][name] for one in found) for name in ("pss", "pss_file")}
    print(table(["process", "load s", "Rss MiB", "Pss MiB", "Pss growth MiB", "of it mapped files"], rows))
    print(f"\nthe set: {held:.0f} MiB; {count} private copies would be {count * held:.0f} MiB")
    print(f"growth of all {count} processes together: {sums['pss']:.0f} MiB ({sums['pss'] / held:.2f} copies)")
    print(f"of it mapped files (the data): {sums['pss_file']:.0f} MiB ({sums['pss_file'] / held:.2f} copies)")
    assert len({one["digest"] for one in found}) == 1


if __name__ == "__main__":
    main()
