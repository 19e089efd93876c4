"""What a person opens, in headless Chromium: the MLflow UI on a finished digits sweep, the report without a network.

Pictures of every page are left in the test's own temporary folder; those in docs/figures/tracking come from
`python tests/browser/mlflow_pages.py`.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.browser import mlflow_pages, report_page
from tests.tune_rsst import rest_server
from tune_rsst.report.sweep_figures import CAPTIONS
from tune_rsst.results import ranking, table
from tune_rsst.storage import folder
from tune_rsst.storage.folder import SweepFolder

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (make test-tools)"),
]
# MLflow asks for what only its newer servers have (the browser logs the answer 404), and resizes while it draws.
OF_MLFLOW = ("Failed to load resource: the server responded with a status of 404", "null ResizeObserver loop completed")


@pytest.fixture(scope="module")
def address(digits_sweep: SweepFolder) -> Iterator[str]:
    """An MLflow server over the sweep's database."""
    uri, port = folder.Sweep.of(digits_sweep).view.settings["mlflow_tracking_uri"], rest_server.free_port()
    server = rest_server.start(uri, port, digits_sweep.path)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


def printed_page(sweep_folder: SweepFolder, server: str) -> str:
    """The address in the table of a sweep whose MLflow is `server`."""
    sweep, screen = folder.Sweep.of(sweep_folder), io.StringIO()
    sweep.view.settings["mlflow_tracking_uri"] = server
    table.print_table(Console(file=screen, width=220), sweep)
    (line,) = [line for line in screen.getvalue().splitlines() if line.startswith("MLflow: ")]
    return line.removeprefix("MLflow: ")


def test_mlflow_shows_the_sweep_its_trials_the_comparison_curves_and_pictures(
    address: str, digits_sweep: SweepFolder, tmp_path: Path
) -> None:
    view = folder.Sweep.of(digits_sweep).view
    best = ranking.rank(view)[0]
    texts, errors = mlflow_pages.look(address, digits_sweep.name, tmp_path, printed_page(digits_sweep, address))
    assert f"{1 + len(view.trials)} matching runs" in texts["printed"] and "Run Name" in texts["printed"]
    assert digits_sweep.name in texts["runs"]
    for trial in view.trials:
        assert re.search(rf"^{trial} lr ", texts["runs"], re.MULTILINE), "each trial stands below its sweep"
    assert f"{best.metrics['val_top1']:.4f}" in texts["parent"] and "target_density 0.45" in texts["parent"]
    assert "init_effective" in texts["child"] and best.fingerprint in texts["child"]
    sections = re.findall(r"^([\w ]+)\n+\(\d+\)\n", texts["curves"], re.MULTILINE)
    assert sections == ["Model metrics"], "curves come first: no value that is there once has a section before them"
    assert texts["curves"].endswith(f"train_loss has {best.metrics['epochs_trained']} points")
    assert "parts: train: images 1259, classes 10, fewest 122, most 129" in texts["data set"]
    assert best.data_digest in texts["data set"] and "note 1: val: 15% of each class" in texts["data set"]
    assert "Comparing 4 Runs" in texts["compare"]
    assert texts["parallel"].split() == [*mlflow_pages.DIMENSIONS, mlflow_pages.METRIC]
    assert "layers.png" in texts["pictures"] and int(texts["widths"]) >= 600
    assert [error for error in errors if not error.startswith(OF_MLFLOW)] == []
    assert {p.stem for p in tmp_path.glob("*.png")} == {
        "runs",
        "parent",
        "child",
        "curves",
        "compare",
        "pictures",
        "printed",
        "data_set",
    }


def test_the_report_opens_without_a_network_and_every_axis_says_what_it_shows(
    digits_sweep: SweepFolder, tmp_path: Path
) -> None:
    seen = report_page.look(digits_sweep.report, tmp_path)
    assert (seen.errors, seen.requests, seen.broken_images) == ([], [], 0)
    assert set(seen.figures) == {f"figure-{name}" for name in CAPTIONS}
    assert all(texts for texts in seen.figures.values()), "a figure without any axis title"
    assert seen.images >= 3 * 4, "three pictures of each trial"
    assert (tmp_path / "report.png").stat().st_size > 50_000
