"""The page of the status as a reader sees it: in a real browser, without a network."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from support.checks import nonempty
from voxelsoup.runs.run_state import AT_WORK
from voxelsoup.status.page import CURVE_POINTS, curve, write_page
from voxelsoup.status.rows import RunRow, StudyStatus


def now() -> datetime:
    """This second: the tests of a whole run begin long after they were collected."""
    return datetime.now(UTC).replace(microsecond=0)


NOW = now()
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>alert(1)</script>'\"&"


def row(run: str, state: Any = "running", **known: Any) -> RunRow:
    """A run of fold 0 that has trained half of its epochs, with what is known besides."""
    common: dict[str, Any] = {"fold": 0, "epoch": 5, "epochs": 10, "parameters": {}}
    return RunRow(run=run, state=state, **common | known)


STEM = row(
    "stem",
    "done",
    epoch=10,
    training_loss=0.2341,
    selection_loss=0.31,
    selection_score=0.8765,
    epochs_per_hour=12.5,
    gpu="NVIDIA H100 #1",
    host="h001",
    job="4711",
    partition="gpu-long",
    attempt=2,
    started=NOW - timedelta(days=2),
    losses=[1.0, 0.6, 0.4, 0.3, 0.28, 0.27, 0.26, 0.25, 0.24, 0.2341],
)
TRIALS = [
    row("aaaa0001", parameters={"optimizer.lr": 0.01, "training.loss": "dice"}, training_loss=9.5),
    row("aaaa0002", "failed", parameters={"optimizer.lr": 0.002, "training.loss": "dice_ce"}),
    row(
        "aaaa0003", "waiting", epoch=0, parameters={"optimizer.lr": 1e-05, "training.loss": "dice"}
    ),
    row("aaaa0004", "retrying", detail="2 of 3", training_loss=10.25, attempt=3),
]
ROWS = [STEM, *TRIALS]


def status_of(rows: list[RunRow], **known: Any) -> StudyStatus:
    common: dict[str, Any] = {"study": "study.yaml", "results": "results", "at": now()}
    return StudyStatus(rows=rows, **common | {"gpu_hours": 0.0, "hours": 1.5} | known)


@dataclass
class Reading:
    """The page in a browser, and what the browser had to complain about."""

    page: Page
    file: Path
    complaints: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def write(self, status: StudyStatus, refresh_seconds: float = 600) -> None:
        write_page(status, self.file, refresh_seconds)

    def open(self, status: StudyStatus, refresh_seconds: float = 600, view: str = "") -> None:
        """Write the page and open the file, by an address that ends in a view."""
        self.write(status, refresh_seconds)
        self.page.goto(self.file.as_uri() + view)

    def runs(self) -> list[str]:
        """The runs that are shown, from top to bottom."""
        rows = self.page.locator("tbody tr:visible")
        found: list[str] = rows.evaluate_all("rows => rows.map(row => row.id.split('/')[1])")
        return found

    def head(self, name: str) -> Locator:
        return self.page.locator("thead").get_by_role("button", name=name, exact=True)

    def cell(self, run: str, head: str) -> Locator:
        names = [name.strip() for name in self.page.locator("thead th").all_inner_texts()]
        return self.page.locator(f'[id="{run}"] > *').nth(names.index(head))

    def chip(self, state: str) -> Locator:
        return self.page.locator(f'.chips button[data-state="{state}"]')


def reading_in(context: BrowserContext, folder: Path) -> Reading:
    """A reading in a browser that refuses every address but those of the page itself."""
    reading = Reading(context.new_page(), folder / "status.html")

    def refuse_the_network(route: Route) -> None:
        own = route.request.url.startswith(("file:", "data:", "http://127.0.0.1:"))
        if own:
            return route.continue_()
        reading.outside.append(route.request.url)
        return route.abort()

    reading.page.route("**/*", refuse_the_network)
    reading.page.on("pageerror", lambda error: reading.complaints.append(str(error)))
    reading.page.on("dialog", lambda dialog: reading.complaints.append(dialog.message))
    reading.page.on(
        "console", lambda said: said.type == "error" and reading.complaints.append(said.text)
    )
    reading.page.set_default_timeout(20_000)
    return reading


def read_with(browser: Browser, folder: Path, **context: Any) -> Iterator[Reading]:
    settings = {"viewport": {"width": 1400, "height": 800}, "timezone_id": "Asia/Tokyo"} | context
    opened = browser.new_context(**settings)
    reading = reading_in(opened, folder)
    yield reading
    opened.close()
    assert reading.complaints == []
    assert reading.outside == []


@pytest.fixture
def reading(browser: Browser, tmp_path: Path) -> Iterator[Reading]:
    yield from read_with(browser, tmp_path)


@pytest.fixture
def phone(browser: Browser, tmp_path: Path) -> Iterator[Reading]:
    size = {"width": 390, "height": 844}
    yield from read_with(browser, tmp_path, viewport=size, has_touch=True, is_mobile=True)


def test_every_column_has_its_value(reading: Reading) -> None:
    reading.open(status_of(ROWS))
    shown = {
        "Fold": "0",
        "Run": "stem",
        "State": "done",
        "Epoch": "10 of 10",
        "Training loss": "0.2341",
        "Selection score": "0.8765",
        "Selection loss": "0.3100",
        "lr": "",
        "Epochs per hour": "12.5",
        "Estimated end": "",
        "GPU": "NVIDIA H100 #1",
        "Host": "h001",
        "Slurm job": "4711",
        "Partition": "gpu-long",
        "Attempt": "2",
    }
    for head, text in shown.items():
        assert reading.cell("fold0/stem", head).inner_text().strip() == text, head
    assert reading.cell("fold0/aaaa0001", "lr").inner_text() == "0.01"
    assert reading.cell("fold0/aaaa0004", "State").inner_text() == "retrying 2 of 3"
    assert reading.page.locator('[id="fold0/stem"] progress').get_attribute("value") == "10"
    assert reading.page.locator('[id="fold0/stem"] svg path').count() == 1
    assert reading.page.locator('[id="fold0/aaaa0001"] svg').count() == 0


def test_columns_of_slurm_are_left_out_where_there_is_none(reading: Reading) -> None:
    reading.open(status_of(TRIALS))
    assert "Slurm job" not in reading.page.locator("thead").inner_text()


def test_the_first_line_sums_the_study_up(reading: Reading) -> None:
    end = NOW + timedelta(hours=3)
    reading.open(status_of(ROWS, gpu_hours=12.34, estimated_end=end, note="Slurm is silent."))
    summary = reading.page.locator(".summary").inner_text()
    for part in ("1 of 5 runs done", "2 running", "1 failed", "12.3 GPU hours spent"):
        assert part in summary.replace("\n", " ")
    assert reading.page.locator(".summary time").get_attribute("datetime") == f"{end:%FT%TZ}"
    assert reading.page.get_by_text("Slurm is silent.").is_visible()
    reading.open(status_of(ROWS))
    assert "1.50 CPU hours spent" in reading.page.locator(".summary").inner_text()


def test_times_are_those_of_the_readers_zone(reading: Reading) -> None:
    started = datetime(2020, 1, 31, 18, 30, tzinfo=UTC)
    reading.open(status_of([replace(STEM, started=started)]))
    assert reading.cell("fold0/stem", "Started").inner_text() == "1 Feb, 03:30"
    assert "times of Asia/Tokyo" in reading.page.locator(".made").inner_text()


def test_numbers_are_sorted_as_numbers_and_missing_ones_are_last(reading: Reading) -> None:
    reading.open(status_of(ROWS))
    written = reading.runs()
    assert written == [run.run for run in ROWS]
    loss = reading.head("Training loss")
    loss.click()
    upwards = ["stem", "aaaa0001", "aaaa0004", "aaaa0002", "aaaa0003"]
    assert reading.runs() == upwards
    sorted_column = reading.page.locator('th[data-key="training_loss"]')
    assert sorted_column.get_attribute("aria-sort") == "ascending"
    # By the keyboard as well.
    loss.press("Enter")
    assert reading.runs() == ["aaaa0004", "aaaa0001", "stem", "aaaa0002", "aaaa0003"]
    assert sorted_column.get_attribute("aria-sort") == "descending"
    loss.press("Space")
    assert reading.runs() == written
    assert sorted_column.get_attribute("aria-sort") == "none"
    reading.head("lr").click()
    assert reading.runs()[:3] == ["aaaa0003", "aaaa0002", "aaaa0001"]
    assert sorted_column.get_attribute("aria-sort") == "none"


@pytest.mark.parametrize("head", ["Fold", "Run", "State", "Epoch", "Estimated end", "Started"])
def test_every_column_sorts(reading: Reading, head: str) -> None:
    ends = [None, NOW + timedelta(days=2), NOW + timedelta(hours=30), None, NOW]
    rows = [
        replace(run, fold=fold, estimated_end=end, started=end, epoch=epoch)
        for run, fold, end, epoch in zip(
            ROWS, (10, 9, 2, 0, 1), ends, (9, 100, 8, 0, 11), strict=True
        )
    ]
    reading.open(status_of(rows))
    by = {
        "Fold": lambda run: run.fold,
        # A rate of 1e-05 is the least one.
        "Run": lambda run: ["aaaa0004", "aaaa0003", "aaaa0002", "aaaa0001", "stem"].index(run.run),
        "State": lambda run: ["waiting", "running", "retrying", "done", "failed"].index(run.state),
        "Epoch": lambda run: run.epoch,
        "Estimated end": lambda run: (run.estimated_end is None, run.estimated_end or NOW),
        "Started": lambda run: (run.started is None, run.started or NOW),
    }
    reading.head(head).click()
    assert reading.runs() == [run.run for run in sorted(rows, key=by[head])]


def test_the_filter_looks_at_names_settings_and_machines(reading: Reading) -> None:
    reading.open(status_of(ROWS))
    asked = reading.page.get_by_label("Filter runs")
    for text, runs in {
        "0002": ["aaaa0002"],
        "LR=0.01": ["aaaa0001"],
        "loss=dice waiting": ["aaaa0003"],
        "h001": ["stem"],
        "retrying": ["aaaa0004"],
        "nothing like it": [],
        "": [run.run for run in ROWS],
    }.items():
        asked.fill(text)
        assert reading.runs() == runs, text
    asked.fill("0002")
    assert reading.page.locator("#shown").inner_text() == "1 of 5 shown"


def test_chips_count_the_states_and_choose_among_them(reading: Reading) -> None:
    reading.open(status_of([*ROWS, row("aaaa0005")]))
    chips = reading.page.locator(".chips button:visible").all_inner_texts()
    assert chips == ["waiting 1", "running 2", "retrying 1", "done 1", "failed 1"]
    reading.chip("running").click()
    assert reading.runs() == ["aaaa0001", "aaaa0005"]
    assert reading.chip("running").get_attribute("aria-pressed") == "true"
    reading.chip("failed").press("Enter")
    assert reading.runs() == ["aaaa0001", "aaaa0002", "aaaa0005"]
    reading.chip("running").click()
    reading.chip("failed").click()
    assert len(reading.runs()) == 6


def many(count: int) -> list[RunRow]:
    losses = [2.0 / epoch for epoch in range(1, 301)]
    known = {"losses": losses, "gpu": "NVIDIA H100 #0", "host": "h001", "started": NOW}
    return [
        row(f"{n:08x}", "done", fold=n % 5, parameters={"optimizer.lr": n / 10_000}, **known)
        for n in range(count)
    ]


def test_a_refresh_shows_the_new_file_and_keeps_the_scroll_position(reading: Reading) -> None:
    reading.open(status_of(many(80)))
    reading.head("lr").click()
    reading.head("lr").click()
    reading.chip("done").click()
    asked = reading.page.get_by_label("Filter runs")
    asked.press_sequentially("h001")
    reading.page.locator("main").evaluate("main => main.scrollTo(150, 700)")
    changed = [replace(run, training_loss=0.125) for run in many(90)]
    reading.write(status_of(changed))
    # As the page does itself, but not between two of the clicks above.
    reading.page.evaluate("() => void reload()")
    expect(reading.page.locator(".summary")).to_contain_text("90 of 90 runs done")
    # Its script may run later than its text is shown.
    place = "(main => `${main.scrollLeft}, ${main.scrollTop}`)(document.querySelector('main'))"
    reading.page.wait_for_function(f"() => {place} === '150, 700'")
    assert reading.runs()[0] == f"{89:08x}"
    assert reading.chip("done").get_attribute("aria-pressed") == "true"
    # The cursor stays in the field.
    reading.page.keyboard.type(" fold4")
    assert asked.input_value() == "h001 fold4"
    assert len(reading.runs()) == 18


def test_a_refresh_keeps_the_keyboard_focus(reading: Reading) -> None:
    reading.open(status_of(ROWS))
    link = reading.page.locator('[id="fold0/aaaa0002"] a')
    for place in (reading.head("lr"), reading.chip("failed"), link, reading.page.locator("#text")):
        place.focus()
        reading.page.reload()
        expect(place).to_be_focused()


def test_a_chosen_state_stays_chosen_while_no_run_has_it(reading: Reading) -> None:
    reading.open(status_of(ROWS), view="#states=failed")
    assert reading.runs() == ["aaaa0002"]
    reading.write(status_of([STEM]))
    reading.page.reload()
    assert reading.runs() == []
    assert reading.chip("failed").inner_text() == "failed 0"
    reading.chip("failed").click()
    assert reading.runs() == ["stem"]


def test_a_run_can_be_linked_to(reading: Reading) -> None:
    reading.open(status_of(many(200)))
    link = reading.page.locator(f'[id="fold0/{150:08x}"] a').get_attribute("href")
    assert link == f"#run=fold0/{150:08x}"
    # From elsewhere, where another filter would hide it.
    reading.open(status_of(many(200)), view=f"{link}&states=failed")
    linked = reading.page.locator("tr.linked")
    assert linked.locator("th").inner_text() == f"lr 0.015 {150:08x}"
    expect(linked).to_be_in_viewport()
    assert len(reading.runs()) == 1
    # A second click takes the mark away again.
    linked.locator("a").click()
    assert reading.runs() == []


def test_an_old_page_is_marked(reading: Reading) -> None:
    reading.open(status_of(ROWS), refresh_seconds=60)
    assert reading.page.locator("#stale").is_hidden()
    old = now() - timedelta(minutes=10)
    reading.open(status_of(ROWS, at=old), refresh_seconds=60)
    assert reading.page.locator("#stale").inner_text().startswith("Stale: this page is 10 minutes")
    # Nothing more will happen to these.
    reading.open(status_of([STEM], at=old), refresh_seconds=60)
    assert reading.page.locator("#stale").is_hidden()


def test_a_page_on_a_server_refreshes_and_outlives_the_server(
    reading: Reading, tmp_path: Path
) -> None:
    reading.write(status_of(ROWS), refresh_seconds=1)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        reading.page.goto(f"http://127.0.0.1:{server.server_port}/status.html")
        # Servers give the times of files in whole seconds.
        reading.page.wait_for_timeout(1100)
        old = now() - timedelta(minutes=10)
        reading.write(status_of([*ROWS, row("aaaa0009")], at=old), refresh_seconds=1)
        expect(reading.page.locator(".summary")).to_contain_text("of 6 runs")
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
    with reading.page.expect_event("console", lambda said: "ERR_CONNECTION" in said.text):
        pass
    assert len(reading.runs()) == 6
    assert reading.page.locator("#stale").is_visible()
    # The browser itself has written that the server did not answer.
    assert all("ERR_CONNECTION" in said for said in reading.complaints)
    reading.complaints.clear()


def test_hostile_names_are_only_text(reading: Reading) -> None:
    hostile = row(
        HOSTILE,
        "failed",
        detail=HOSTILE,
        parameters={f"optimizer.{HOSTILE}": HOSTILE},
        gpu=HOSTILE,
        host=HOSTILE,
        job=HOSTILE,
        partition=HOSTILE,
    )
    reading.open(status_of([hostile], study=HOSTILE, results=HOSTILE, note=HOSTILE))
    assert reading.page.locator("h1").inner_text() == HOSTILE
    assert reading.page.locator("tbody th").inner_text() == HOSTILE
    assert reading.page.locator("img, body script").count() == 1
    assert HOSTILE in reading.page.title()
    reading.page.locator("tbody a").click()
    assert reading.page.locator("tr.linked").count() == 1
    reading.page.reload()
    assert reading.page.locator("tr.linked").count() == 1


def test_a_phone_shows_cards_that_fit(phone: Reading) -> None:
    long = row("aaaa0006", "failed", detail="x" * 300, host="h" * 80, epoch=1_000, epochs=100_000)
    phone.open(status_of([*ROWS, long], study="a" * 120, note="n" * 200))
    width = phone.page.evaluate("document.documentElement.scrollWidth")
    assert width == 390
    for card in nonempty(phone.page.locator("tbody tr").all()):
        box = card.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390
    # Every line of a card says what it is.
    labels = phone.cell("fold0/stem", "Training loss").evaluate(
        "cell => getComputedStyle(cell, '::before').content"
    )
    assert labels == '"Training loss"'
    phone.page.get_by_label("Sort by").select_option("Training loss")
    assert phone.runs()[:3] == ["stem", "aaaa0001", "aaaa0004"]
    phone.page.get_by_label("Turn the order round").tap()
    assert phone.runs()[:3] == ["aaaa0004", "aaaa0001", "stem"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, tmp_path: Path, scheme: str) -> None:
    for reading in read_with(browser, tmp_path, color_scheme=scheme):
        reading.open(status_of([replace(run, detail="why") for run in ROWS], note="a note"))
        reading.chip("done").click()
        reading.chip("done").click()
        reading.page.locator("main").hover(position={"x": 5, "y": 5})
        selectors = ".summary, .made, .note, thead button, .chips button, tbody a, td b, td small"
        colours = reading.page.locator(selectors).evaluate_all(
            "all => [...new Set(all.map(one => getComputedStyle(one).color))]"
        )
        ground = reading.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert len(colours) >= 5
        for colour in colours:
            # The Web Content Accessibility Guidelines ask for 4.5 of texts of this size.
            assert contrast(colour, ground) >= 4.5, (colour, ground)


def contrast(one: str, other: str) -> float:
    """Ratio of two colours by the Web Content Accessibility Guidelines 2.1."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_five_thousand_runs_are_a_few_megabytes_and_can_be_sorted(reading: Reading) -> None:
    reading.open(status_of(many(5_000)))
    assert reading.file.stat().st_size < 5e6
    reading.head("lr").click()
    reading.head("lr").click()
    assert reading.page.locator("tbody th").first.inner_text() == f"lr 0.4999 {4999:08x}"
    reading.page.locator("#text").fill("fold3")
    assert reading.page.locator("#shown").inner_text() == "1000 of 5000 shown"


def test_an_empty_study_is_a_page_too(reading: Reading) -> None:
    reading.open(status_of([]))
    assert "0 of 0 runs done" in reading.page.locator(".summary").inner_text()


def points(path: str) -> list[tuple[int, int]]:
    """The corners of a curve; the first pair is its beginning, the others are steps from there."""
    numbers = [int(number) for number in re.findall(r"-?\d+", path)]
    steps = list(zip(numbers[::2], numbers[1::2], strict=True))
    corners = [steps[0]]
    for x, y in steps[1:]:
        corners.append((corners[-1][0] + x, corners[-1][1] + y))
    return corners


def test_a_curve_takes_the_width_of_all_epochs_and_the_height_of_its_losses() -> None:
    half = row("stem", epochs=8, losses=[3.0, 2.0, 2.5, 1.0])
    assert points(curve(half)) == [(15, 0), (30, 12), (45, 6), (60, 24)]


def test_a_long_curve_is_thinned_and_keeps_its_last_loss() -> None:
    losses = [1000.0 - epoch for epoch in range(1000)]
    corners = points(curve(row("stem", epochs=1000, losses=losses)))
    assert len(corners) == CURVE_POINTS
    assert corners[-1] == (120, 24)
    assert corners == sorted(corners)


@pytest.mark.parametrize("losses", [[], [1.0], [float("nan"), 1.0], [float("inf")] * 3])
def test_there_is_no_curve_of_fewer_than_two_numbers(losses: list[float]) -> None:
    assert curve(row("stem", losses=losses)) == ""


def test_runs_at_work_are_those_that_the_contract_names() -> None:
    rows = [row(f"{n:08x}", state) for n, state in enumerate(AT_WORK)]
    assert status_of(rows).count(*AT_WORK) == len(AT_WORK)
