"""Pictures of a finished study for the documents, taken of what its own commands show.

    python docs/screenshots.py results docs/images

The study is the one of ``config.yaml``, run by `make demo`. The browser is the machine's own
Chromium without a network, so that pictures look the same wherever they are taken.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, Route, sync_playwright
from rich.console import Console
from rich.text import Text

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
COLUMNS = 118
LARGEST_SHAPE = (1600, 1600)
LARGEST_BYTES = 300_000
FIGURES = ("differences_greedy", "selection_against_test", "barriers")


def main(results: Path, images: Path) -> None:
    """Take all pictures.

    Args:
        results: folder of the finished study.
        images: where they go.
    """
    images.mkdir(parents=True, exist_ok=True)
    with browser_page() as page, tempfile.TemporaryDirectory() as scratch:
        keep(terminal(page, "voxelsoup", "status"), images / "status-terminal.png")
        keep(status_page(page, Path(scratch)), images / "status-page.png")
        keep(report(page, results / "report.html"), images / "report.png")
        keep(table(page, results / "comparison/overview.html"), images / "overview.png")
    for figure in FIGURES:
        shown = (results / "figures" / f"{figure}.png").read_bytes()
        keep(shown, images / f"{figure.replace('_', '-')}.png")


@contextmanager
def browser_page() -> Iterator[Page]:
    """A page of the machine's own browser, whose pixels are doubled, without a network."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.exit(f"screenshots: there is no browser; install one of {', '.join(PROGRAMS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(device_scale_factor=2, color_scheme="light")
        page.route("**/*", only_from_the_disk)
        yield page
        browser.close()


def only_from_the_disk(route: Route) -> None:
    """Refuse whatever a page asks a network for."""
    own = route.request.url.startswith(("file:", "data:", "blob:", "about:"))
    route.continue_() if own else route.abort()


def terminal(page: Page, *command: str) -> bytes:
    """What a command prints on a terminal."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.from_ansi(on_a_terminal(*command)))
    page.set_viewport_size({"width": 1200, "height": 900})
    page.set_content(console.export_svg(title=" ".join(command)))
    return page.locator("svg").screenshot()


def on_a_terminal(*command: str) -> str:
    """Run a command on a terminal of ``COLUMNS`` columns; returns its output with colours."""
    ours, its = pty.openpty()
    size = {"COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=its, stdin=its, env=os.environ | size)
    os.close(its)
    printed = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            # What Linux says at the end of a terminal.
            break
        if not part:
            break
        printed += part
    os.close(ours)
    if process.wait() != 0:
        sys.exit(f"screenshots: {' '.join(command)}: {printed.decode()}")
    return printed.decode().replace("\r\n", "\n").rstrip()


def status_page(page: Page, scratch: Path) -> bytes:
    """The page that `voxelsoup status --html` writes."""
    file = scratch / "status.html"
    subprocess.run(["voxelsoup", "status", "--html", str(file)], check=True)
    page.set_viewport_size({"width": 1560, "height": 600})
    page.goto(file.as_uri())
    page.locator("[id='fold0/stem']").wait_for()
    return page.screenshot(animations="disabled")


def report(page: Page, file: Path) -> bytes:
    """The report's first page."""
    page.set_viewport_size({"width": 1400, "height": 820})
    page.goto(file.as_uri())
    page.get_by_text("General").wait_for()
    page.locator("table.answer").first.wait_for()
    # The menu fades in.
    return page.screenshot(animations="disabled")


def table(page: Page, file: Path) -> bytes:
    """A table of the results."""
    page.set_viewport_size({"width": 1400, "height": 900})
    page.goto(file.as_uri())
    return page.locator("table").first.screenshot()


def keep(picture: bytes, file: Path) -> None:
    """Write a picture with no more pixels and colours than a document needs."""
    with Image.open(BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    image.thumbnail(LARGEST_SHAPE, Image.Resampling.LANCZOS)
    image.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    size = file.stat().st_size
    print(f"{file}: {image.width} x {image.height}, {size // 1000} kB")
    if size > LARGEST_BYTES:
        sys.exit(f"screenshots: {file} has more than {LARGEST_BYTES // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
