"""Opens a sweep in the MLflow UI with headless Chromium and takes screenshots.

python tests/browser/mlflow_pages.py http://127.0.0.1:5000 SWEEP FOLDER [PRINTED]

In: the address of a running MLflow UI, the name of a sweep in it, the page that `tune-rsst show` prints for it.
Out: a picture of each page in FOLDER; prints what it found on the pages and the console errors.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SIZE = {"width": 1500, "height": 1000}
PATIENCE_MS, SETTLE_MS = 60_000, 1_500
METRIC = "val_top1"
DIMENSIONS = ("lr", "warmup", "rate", "reg_granularity_prune")


def runs_of(address: str, sweep: str) -> tuple[str, Any, list[Any]]:
    """Experiment id, parent run and finished children, asked over REST."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    ids = [e.experiment_id for e in client.search_experiments()]
    parent = client.search_runs(ids, f"tags.sweep = '{sweep}' and tags.role = 'sweep'", max_results=1)[0]
    where = f"tags.sweep_uid = '{parent.data.tags['sweep_uid']}' and tags.role = 'trial'"
    return parent.info.experiment_id, parent, list(client.search_runs([parent.info.experiment_id], where))


def first_visit(page: Any, printed: str, expected: str, picture: Path) -> str:
    """Open the printed address as it is, in a browser that has never seen MLflow; the page's text."""
    page.goto(printed)
    try:
        page.wait_for_function("word => document.body.innerText.includes(word)", arg=expected, timeout=PATIENCE_MS)
    finally:
        page.screenshot(path=str(picture))
    return str(page.inner_text("body"))


def visit(page: Any, address: str, expected: str, picture: Path) -> str:
    """Open a page, wait until `expected` stands on it, take a picture; its text."""
    page.goto(f"{address}{'&' if '?' in address else '?'}workflowType=machine_learning")
    page.reload()
    try:
        page.wait_for_function("word => document.body.innerText.includes(word)", arg=expected, timeout=PATIENCE_MS)
    finally:
        page.screenshot(path=str(picture))
    page.wait_for_timeout(SETTLE_MS)
    assistant = page.get_by_role("button", name="Close")
    if assistant.count():
        assistant.first.click()
        page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=str(picture))
    return str(page.inner_text("body"))


def compare_address(address: str, experiment: str, runs: list[Any]) -> str:
    """The compare page of `runs`."""
    ids = ",".join(f'"{run.info.run_id}"' for run in runs)
    return f'{address}/#/compare-runs?runs=[{ids}]&experiments=["{experiment}"]'


def choose_axes(page: Any, picture: Path) -> str:
    """Put DIMENSIONS and METRIC on the axes of the compare page's parallel coordinates; the labels that are drawn."""
    page.get_by_role("button", name="Clear All").click()
    parameters, metrics = page.get_by_role("combobox").all()[:2]
    for box, names in ((parameters, DIMENSIONS), (metrics, (METRIC,))):
        for name in names:
            box.click()
            box.fill(name)
            page.locator(f'[class*="select-item-option"][title="{name}"]').first.click()  # others may contain the name
        page.keyboard.press("Escape")
    page.wait_for_function(
        "words => words.every(w => [...document.querySelectorAll('.axis-title')].some(n => n.textContent === w))",
        arg=[*DIMENSIONS, METRIC],
        timeout=PATIENCE_MS,
    )
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=str(picture))
    return " ".join(page.locator(".axis-title").all_text_contents())


def shown_picture(page: Any, picture: Path) -> int:
    """Width in pixels of the picture that the artifact page shows, once it is there."""
    found = "() => Math.max(0, ...[...document.images].map(image => image.naturalWidth))"
    page.wait_for_function(f"() => ({found})() > 500", timeout=PATIENCE_MS)
    page.screenshot(path=str(picture))
    return int(page.evaluate(found))


def data_set(page: Any, name: str, picture: Path) -> str:
    """Open the run's data set on its page; what stands there."""
    page.get_by_role("button", name=f"{name} (").first.click()
    page.wait_for_function("() => document.body.innerText.includes('Data details for')", timeout=PATIENCE_MS)
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=str(picture))
    return str(page.inner_text("body")).partition("Data details for")[2]


def expand(page: Any, children: list[Any], picture: Path) -> str:
    """Open the sweep's row in the list of runs: its trials stand below it. The page's text."""
    page.locator("[data-testid='expander-cell'] button, [role=gridcell] button").first.click()
    names = [run.info.run_name for run in children]
    page.wait_for_function(
        "names => names.every(name => document.body.innerText.includes(name))", arg=names, timeout=PATIENCE_MS
    )
    page.screenshot(path=str(picture))
    return str(page.inner_text("body"))


def one_curve(page: Any, metric: str, picture: Path) -> int:
    """Ask the metrics page for one curve; its number of points, once it is drawn."""
    page.get_by_placeholder("Search metric charts").fill(metric)
    page.wait_for_function("() => !document.body.innerText.includes('doomed_norm_left')", timeout=PATIENCE_MS)
    drawn = "() => Math.max(0, ...[...document.querySelectorAll('.scatterlayer .trace')].map(t => %s))"
    line = drawn % "t.querySelector('path.js-line')?.getAttribute('d').split(/[LHVC]/).length ?? 0"
    page.wait_for_function(f"() => ({line})() > 1", timeout=PATIENCE_MS)
    page.screenshot(path=str(picture))
    return int(page.evaluate(line))


def look(address: str, sweep: str, folder: Path, printed: str) -> tuple[dict[str, str], list[str]]:
    """Text of each page by name, and the console's errors. `printed`: what a person is told to open."""
    from playwright.sync_api import sync_playwright

    experiment, parent, children = runs_of(address, sweep)
    best = parent.data.tags["best_trial"]
    child = next(run for run in children if run.data.tags["trial"] == best)
    base = f"{address}/#/experiments/{experiment}/runs"
    errors: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=shutil.which("chromium"), args=FLAGS, viewport=SIZE
        )
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        texts = {
            "printed": first_visit(page, printed, str(parent.info.run_name), folder / "printed.png"),
            "runs": visit(page, base, str(parent.info.run_name), folder / "runs.png")
            + expand(page, children, folder / "runs.png"),
            "parent": visit(page, f"{base}/{parent.info.run_id}", "Sweep", folder / "parent.png"),
            "child": visit(page, f"{base}/{child.info.run_id}", best, folder / "child.png"),
            "data set": data_set(page, child.inputs.dataset_inputs[0].dataset.name, folder / "data_set.png"),
            "curves": visit(page, f"{base}/{child.info.run_id}/model-metrics", "epochs_trained", folder / "curves.png")
            + f" train_loss has {one_curve(page, 'train_loss', folder / 'curves.png')} points",
            "compare": visit(
                page, compare_address(address, experiment, children), "Parallel Coordinates", folder / "compare.png"
            ),
        }
        texts["parallel"] = choose_axes(page, folder / "compare.png")
        pictures = f"{base}/{child.info.run_id}/artifacts/pictures/rounds.png"
        texts["pictures"] = visit(page, pictures, "rounds.png", folder / "pictures.png")
        texts["widths"] = str(shown_picture(page, folder / "pictures.png"))
        context.close()
    return texts, errors


def main() -> None:
    """Command line."""
    address, sweep, folder, *printed = sys.argv[1:]
    texts, errors = look(address.rstrip("/"), sweep, Path(folder), printed[0] if printed else address)
    for name, text in texts.items():
        print(f"--- {name}: {len(text)} characters; {[word for word in DIMENSIONS if word in text]}")
    print("console errors:", *(error[:200] for error in errors), sep="\n  ")


if __name__ == "__main__":
    main()
