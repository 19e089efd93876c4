"""Two processes that draw the same pictures at the same time: the driver's own, and a person's `tune-rsst report`."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from tests.tune_rsst.recorded import Recorder, sweep_events
from trainables import figures
from trainables.storage.files import is_temporary
from tune_rsst.report import pictures, sweep_figures
from tune_rsst.storage.folder import SweepFolder

TIMES, TRIAL = 25, "t0000"  # each of the two
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"


def draw(folder: Path, start: Any) -> None:
    """The program that draws in a process of its own, TIMES times; all of it but the figures, which are small here."""
    import plotly.graph_objects
    from matplotlib.figure import Figure

    small, page = Figure(figsize=(0.5, 0.5)), plotly.graph_objects.Figure()
    figures.trial_figures = lambda trial: iter([("rounds", small)])
    sweep_figures.still = lambda view: iter([("front", small)])
    sweep_figures.interactive = lambda view: iter([("front", page)])
    pictures.NICENESS = 0
    start.wait(60)
    for _ in range(TIMES):
        pictures.main([str(folder), TRIAL, "--sweep"])


def damage(folder: SweepFolder, script_bytes: int) -> list[str]:
    """What a reader finds of the pictures and the report that is not complete."""
    found = []
    for path in [*folder.pictures.rglob("*.*"), folder.report]:
        if is_temporary(path) or not path.exists():
            continue
        content = path.read_bytes()
        complete = {
            ".png": content.startswith(PNG) and content.endswith(PNG_END),
            ".html": content.startswith(b"<!doctype html>") and content.rstrip().endswith(b"</html>"),
            ".js": len(content) == script_bytes,
        }
        if not complete[path.suffix]:
            found.append(f"{path.name}: {len(content)} bytes")
    return found


@pytest.mark.medium
def test_two_processes_that_draw_the_same_pictures_50_times_never_fail_and_never_publish_half_a_file(
    tmp_path: Path,
) -> None:
    folder = SweepFolder(tmp_path / "demo")
    folder.path.mkdir()
    Recorder(folder.ledger).write(*sweep_events(trials=1))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    drawers = [context.Process(target=draw, args=(folder.path, start)) for _ in range(2)]
    for drawer in drawers:
        drawer.start()
    script_bytes, looks = len(get_plotlyjs().encode()), 0
    try:
        while any(drawer.is_alive() for drawer in drawers):
            assert damage(folder, script_bytes) == []
            looks += 1
    finally:
        for drawer in drawers:
            drawer.kill()
            drawer.join(60)
    assert [drawer.exitcode for drawer in drawers] == [0, 0]
    assert looks > TIMES and damage(folder, script_bytes) == []
    assert {path.name for path in folder.path.rglob("*.*")} >= {"rounds.png", "front.png", "front.html", "report.html"}
    assert not [path for path in folder.path.rglob(".*") if is_temporary(path)]
