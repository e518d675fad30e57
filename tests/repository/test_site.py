"""The site of the documents: complete, without warnings, and read without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route

from support.documents import REPOSITORY

OWN = ("file:", "data:", "blob:", "about:")
IMAGES = sorted((REPOSITORY / "docs/images").glob("*.png"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it: any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert built.stdout + built.stderr == ""
    return folder


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A browser that may look at the disk alone, and whatever it asked for beside."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(20_000)
    yield page
    page.close()


def test_every_page_opens_without_a_network_and_without_complaints(site: Path, page: Page) -> None:
    asked_for: list[str] = []
    complaints: list[str] = []

    def refuse_the_network(route: Route) -> None:
        if route.request.url.startswith(OWN):
            route.continue_()
        else:
            asked_for.append(route.request.url)
            route.abort()

    page.route("**/*", refuse_the_network)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: message.type == "error" and complaints.append(message.text),
    )
    files = {file.name: file for file in sorted(site.glob("*.html"))}
    # Web servers show it for any address; its own links are absolute.
    del files["404.html"]
    assert len(files) == len(list((REPOSITORY / "docs").glob("*.md")))
    for file in files.values():
        page.goto(file.as_uri())
        broken = page.evaluate(
            "[...document.images].filter(one => !one.complete || !one.naturalWidth).map(i => i.src)"
        )
        assert broken == [], file.name
    assert asked_for == []
    assert complaints == []


def test_the_menu_leads_to_every_page(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri())
    links = page.locator(".md-nav--primary a[href$='.html']")
    reached = {Path(str(link.get_attribute("href"))).name for link in links.all()}
    pages = {f"{file.stem}.html" for file in (REPOSITORY / "docs").glob("*.md")}
    assert reached == pages


def test_the_search_works_from_a_folder(site: Path, page: Page) -> None:
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.keyboard.type("selection_share", delay=10)
    result = page.locator(".md-search-result__link").first
    result.wait_for()
    assert "configuration.html" in str(result.get_attribute("href"))


def test_pictures_are_small_and_all_of_them_are_shown() -> None:
    assert len(IMAGES) == 7
    text = "".join(file.read_text() for file in (REPOSITORY / "docs").glob("*.md"))
    for image in IMAGES:
        assert image.stat().st_size < 300_000
        with Image.open(image) as opened:
            assert max(opened.size) <= 1600
        assert f"(images/{image.name})" in text
