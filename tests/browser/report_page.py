"""Opens a report with the network off in headless Chromium: what it shows, what it complains about, a screenshot.

python tests/browser/report_page.py REPORT.html FOLDER

In: the file.
Out: FOLDER/report.png and, printed, the figures' axis titles and the console's errors.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.browser.mlflow_pages import FLAGS, SIZE

AXES = """() => [...document.querySelectorAll('.plotly-graph-div')].map(
    figure => [figure.id, [...figure.querySelectorAll('.xtitle, .ytitle, .xtick text, .g-gtitle')]
        .map(node => node.textContent)])"""


@dataclass(frozen=True)
class Seen:
    """Text by figure id, errors of the console, addresses that were asked for beyond the file, broken pictures."""

    figures: dict[str, list[str]]
    errors: list[str]
    requests: list[str]
    broken_images: int
    images: int


def look(report: Path, folder: Path) -> Seen:
    """Open `report` offline and write report.png into `folder`."""
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    requests: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=shutil.which("chromium"), args=FLAGS, viewport=SIZE, offline=True
        )
        page = context.new_page()
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.absolute().as_uri())
        page.wait_for_selector(".plotly-graph-div .main-svg", timeout=20_000)
        found = dict(page.evaluate(AXES))
        widths = page.evaluate("() => [...document.images].map(image => image.naturalWidth)")
        page.screenshot(path=str(folder / "report.png"), full_page=True)
        context.close()
    asked = [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
    return Seen(found, errors, asked, widths.count(0), len(widths))


def main() -> None:
    """Command line."""
    seen = look(Path(sys.argv[1]), Path(sys.argv[2]))
    for name, texts in seen.figures.items():
        print(f"{name}: {texts}")
    print(f"{seen.images} pictures, {seen.broken_images} broken; console errors: {seen.errors or 'none'}")


if __name__ == "__main__":
    main()
