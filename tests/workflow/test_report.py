"""The report as a reader sees it: opened from the disk in a real browser, without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Frame, Locator, Page, Route

from support.checks import nonempty
from voxelsoup.common.provenance import versions

SECTIONS = [
    "1 Answer",
    "2 Tables",
    "3 Figures",
    "4 Basin and soups",
    "5 Methods",
    "6 Provenance",
    "7 Run times",
    "8 Data and models",
]
OWN = ("file:", "data:", "blob:", "about:")
SHOWN_IN_THE_PAGE = ("text/html", "image/svg+xml", "image/png")


@dataclass
class Reading:
    """A report in a browser, and what the browser had to complain about."""

    page: Page
    results: Path
    complaints: list[str] = field(default_factory=list)
    asked_for: list[str] = field(default_factory=list)

    def load(self) -> None:
        """Open the file."""
        self.page.goto((self.results / "report.html").as_uri())
        self.page.get_by_text("General").wait_for()

    def begin(self) -> None:
        """Go back to the first page and the whole menu."""
        self.page.evaluate("app.setView({navbarMode: 'menu', content: 'rulegraph'})")
        self.page.get_by_text("General").wait_for()

    def read(self, section: str) -> list[str]:
        """Go to a section by the menu; returns the paths of the results that lie in it."""
        self.begin()
        self.page.locator("nav li").get_by_text(section, exact=True).click()
        return self.page.evaluate("section => Object.values(categories[section]).flat()", section)

    def kind(self, path: str) -> str:
        return self.page.evaluate("path => results[path].mime_type", path)

    def labels(self, path: str) -> list[str]:
        return self.page.evaluate("path => Object.values(results[path].labels)", path)

    def open(self, path: str) -> Locator:
        """Click on the eye of a result of the section that is shown."""
        row = self.page.locator("nav tbody tr")
        for label in self.labels(path):
            row = row.filter(has=self.page.get_by_role("cell", name=label, exact=True))
        row.locator("a").first.click()
        shown = self.page.locator("iframe, #app img:not(nav img)")
        shown.wait_for()
        return shown

    def text(self, path: str) -> str:
        """The words of a page of the section that is shown."""
        return inside(self.open(path)).locator("body").inner_text()


def inside(shown: Locator) -> Frame:
    """The page within a frame, once something of it is drawn."""
    frame = shown.element_handle().content_frame()
    assert frame is not None
    frame.locator("table, svg, p").first.wait_for()
    return frame


@pytest.fixture(scope="module")
def report(browser: Browser, demo: Path) -> Iterator[Reading]:
    """The shipped study's report; whatever it asks a network for is refused and written down."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    reading = Reading(page, demo / "results")

    def refuse_the_network(route: Route) -> None:
        own = route.request.url.startswith(OWN)
        route.continue_() if own else route.abort()

    page.route("**/*", refuse_the_network)
    page.on("request", lambda request: reading.asked_for.append(request.url))
    page.on("pageerror", lambda error: reading.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: message.type == "error" and reading.complaints.append(message.text),
    )
    page.set_default_timeout(20_000)
    reading.load()
    yield reading
    page.close()


@pytest.fixture(autouse=True)
def nothing_from_outside_and_no_errors(report: Reading) -> Iterator[None]:
    """Holds for whatever a test does in the report."""
    yield
    assert [url[:200] for url in report.asked_for if not url.startswith(OWN)] == []
    assert report.complaints == []


def test_the_report_begins_with_the_answer_and_the_numbers_of_the_tables(
    report: Reading,
) -> None:
    report.begin()
    answer = report.page.locator(".answer-headline, p.answer")
    assert answer.count() == 2
    models_table = report.page.locator("table.answer").first
    # Within the window, without scrolling.
    for part in (answer.first, answer.last, models_table):
        box = part.bounding_box()
        assert box is not None
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900
    overview = pd.read_csv(report.results / "comparison/overview.csv", index_col=0)
    models = overview[overview["region"] == "mean"]
    rows = models_table.locator("tbody tr")
    assert rows.count() == len(models)
    for row, numbers in zip(rows.all(), models.itertuples(), strict=True):
        assert numbers.Index in row.inner_text()
        assert f"{numbers.dice_mean:.4f}" in row.inner_text()


def test_every_number_of_the_answer_is_in_a_table(report: Reading) -> None:
    report.begin()
    tables = (report.results / "comparison").glob("*.csv")
    cells = re.findall(r"-?\d+\.\d+(?:e-?\d+)?", " ".join(table.read_text() for table in tables))
    # Differences are stated in Dice points, hundredths; intervals by their confidence in percent.
    known = [abs(float(cell)) * scale for cell in cells for scale in (1, 100)]
    known += [100 * (1 - float(cell)) for cell in cells]
    shown = report.page.locator(".answer-headline, p.answer, table.answer")
    texts = [part.inner_text() for part in shown.all()]
    numbers = re.findall(r"\d+\.\d+", " ".join(texts).replace("< 0.001", ""))
    assert len(numbers) > 10
    for number in numbers:
        digits = len(number.partition(".")[2])
        assert any(f"{value:.{digits}f}" == number for value in known), number


def test_the_menu_has_all_sections_from_the_answer_to_the_run_times(report: Reading) -> None:
    report.begin()
    items = [item.strip() for item in report.page.locator("nav li").all_inner_texts()]
    assert items[-len(SECTIONS) :] == SECTIONS


# The last section holds files to download alone.
@pytest.mark.parametrize("section", SECTIONS[:-1])
def test_every_table_and_figure_of_a_section_renders(report: Reading, section: str) -> None:
    paths = report.read(section)
    for path in nonempty(path for path in paths if report.kind(path) in SHOWN_IN_THE_PAGE):
        shown = report.open(path)
        box = shown.bounding_box()
        assert box is not None and min(box["width"], box["height"]) > 100, path
        if report.kind(path) != "text/html":
            width = shown.evaluate("image => image.decode().then(() => image.naturalWidth)")
            assert width > 100, path
            continue
        drawn = inside(shown).locator("table, svg, p").first
        box = drawn.bounding_box()
        assert box is not None and box["width"] > 100 and box["height"] > 10, path


def test_no_link_of_the_first_page_is_broken(report: Reading) -> None:
    report.begin()
    links = report.page.locator("#app .prose a")
    names = links.all_inner_texts()
    assert len(names) >= 8
    for number in range(len(names)):
        report.begin()
        links.nth(number).click()
        report.page.locator("iframe, #timeline, nav tbody tr").first.wait_for()


def test_links_of_the_first_page_open_the_overview_beside_its_section(report: Reading) -> None:
    report.begin()
    report.page.locator("#app .prose").get_by_role("link", name="Tables", exact=True).click()
    text = inside(report.page.locator("iframe")).locator("body").inner_text()
    overview = pd.read_csv(report.results / "comparison/overview.csv", index_col=0)
    for number in nonempty(overview["dice_mean"]):
        assert f"{number:.4f}" in text
    assert report.page.locator("nav").get_by_role("cell", name="1 overview").is_visible()


def test_tooltips_name_the_marks_of_a_figure(report: Reading) -> None:
    paths = report.read("3 Figures")
    assert all(report.kind(path) == "text/html" for path in paths)
    assert len(paths) == 8
    for path in paths:
        titles = inside(report.open(path)).locator("svg title")
        assert titles.count() > 1, path


def test_the_methods_are_described_with_their_references(report: Reading) -> None:
    report.read("5 Methods")
    text = report.text("results/report/methods.html")
    for phrase in ("30 cases", "MedNeXt [1]", "schedule-free", "greedy soup", "selection cases"):
        assert phrase in text
    cited = {int(n) for mark in re.findall(r"\[([\d, ]+)\]", text) for n in mark.split(",")}
    references = inside(report.page.locator("iframe")).locator("ol.references li")
    assert cited == set(range(1, references.count() + 1))


def test_the_provenance_has_the_commit_the_versions_and_every_model(report: Reading) -> None:
    report.read("6 Provenance")
    text = report.text("results/report/provenance.html")
    assert re.search(r"commit\s+([0-9a-f]{40}|unknown)", text)
    assert versions()["torch"] in text
    manifest = pd.read_csv(report.results / "models/manifest.tsv", sep="\t")
    for digest in nonempty(manifest["sha256"]):
        assert digest in text


def test_the_run_times_name_every_kind_of_job(report: Reading) -> None:
    report.read("7 Run times")
    text = report.text("results/report/run_times.html")
    for rule in (
        "index",
        "stem",
        "trial",
        "soup",
        "postprocessing",
        "ensemble",
        "basin",
        "compare",
    ):
        assert re.search(rf"^{rule}\s+\d", text, re.MULTILINE), rule
    # Two folds with four trials each.
    assert re.search(r"^trial\s+8\s", text, re.MULTILINE)
