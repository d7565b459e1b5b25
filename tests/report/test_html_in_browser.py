"""The report page in a real browser: Debian's Chromium, headless."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dpp import Outcome, Summary
from dpp.report.html import Page
from dpp.report.info import RunInfo
from dpp.report.summary import fold
from dpp.workspace.ledger import Record
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Page as Tab

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update", "--disable-sync"]
EVIL = "</script><img src=x onerror=alert(1)>"
COUNT = 4000
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
SECONDS = 60  # playwright's defaults, 5 s for expectations and 30 s for actions, are too short for a busy machine
RESULT = '{"exact": 12345678901234567890, "half": 0.50}'


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or pytest.fail("chromium is needed: scripts/install-system-packages")
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, "--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=program, args=arguments, timeout=2 * SECONDS * 1000)
        yield launched
        launched.close()


def line(number: int) -> bytes:
    fields = {"id": f"file-{number}", "name": f"n{number}", "url": f"https://example.org/{number}.csv", "key": f"k{number}", "status": "ok"}
    times = {
        "seconds": {"download": number / 1e6, "process": 0.001},
        "at": 1_700_000_000 + number / 100,
        "attempts": 1,
        "bytes": number * 100,
    }
    steps = {"plugins": [{"kind": "processor", "name": "line-count", "version": "7"}], "sha256": "ab" * 32, "cached": number % 10 == 1}
    failed = {
        "status": "failed",
        "stage": "process",
        "error_class": "ValueError",
        "message": f"row {number} is short",
        "traceback": "line 1\nline 2",
    }
    outcome = Outcome.model_validate({**fields, **times, **steps, **(failed if number % 100 == 0 else {})})
    return outcome.model_dump_json().replace('"result":null', f'"result":{RESULT}').encode() + b"\n"


def evil() -> bytes:
    fields = {
        "id": EVIL,
        "name": EVIL,
        "url": f"https://h/{EVIL}",
        "key": EVIL,
        "status": "failed",
        "stage": "download",
        "result": {EVIL: EVIL},
    }
    return Outcome.model_validate({**fields, "error_class": EVIL, "message": EVIL, "traceback": EVIL}).model_dump_json().encode() + b"\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Write the page of a batch of 4,000 files and one with an evil name."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    lines = [*(line(number) for number in range(1, COUNT + 1)), evil()]
    summary = Summary(batch="many", run=3, total=len(lines), seconds=40, folder="/w/batches/many/runs/3")
    with Page(path, RunInfo(started_at=1_700_000_000.0, files="x.json")) as made:
        for _ in made.take(fold(summary, (Record(Outcome.model_validate_json(one), one) for one in lines))):
            pass
        made.write(summary)
    return path


@pytest.fixture
def tab(browser: Browser, page):
    """Open the page and wait until it has loaded. A request, a console message or a dialog fails the test."""
    context = browser.new_context(color_scheme="dark", timezone_id="Asia/Tokyo", reduced_motion="reduce")
    context.set_default_timeout(SECONDS * 1000)
    opened, trouble = context.new_page(), []
    opened.on("request", lambda request: trouble.append(request.url) if request.url != page.as_uri() else None)
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("dialog", lambda dialog: trouble.append(dialog.message))
    opened.goto(page.as_uri())
    expect(opened.locator("html[data-loaded]")).to_have_count(1)
    yield opened
    context.close()
    assert not trouble


def column(tab: Tab, number: int) -> list[str]:
    return tab.locator(f"#table tbody tr > :nth-child({number})").all_inner_texts()


def test_a_column_is_sorted_up_then_down_by_its_button(tab):
    size = tab.get_by_role("columnheader", name="Size")
    size.get_by_role("button").click()
    expect(size).to_have_attribute("aria-sort", "ascending")
    assert column(tab, 6)[:2] == ["100 B", "200 B"]
    size.get_by_role("button").click()
    expect(size).to_have_attribute("aria-sort", "descending")
    expect(tab.locator("#table tbody tr").first).to_contain_text(f"file-{COUNT}")
    tab.get_by_role("columnheader", name="Id").get_by_role("button").click()
    expect(size).not_to_have_attribute("aria-sort", "descending")
    assert column(tab, 2)[1:4] == ["file-1", "file-2", "file-3"]


def test_all_words_of_a_search_are_found_in_any_field(tab):
    tab.get_by_label("Search").fill("VALUEERROR 300")
    expect(tab.locator("#table tbody tr")).to_have_count(5)
    assert column(tab, 2) == ["file-300", "file-1300", "file-2300", "file-3000", "file-3300"]
    tab.get_by_label("Search").fill("nothing like it")
    expect(tab.get_by_role("status")).to_have_text("No file matches")


@pytest.mark.parametrize(("label", "count"), [("ok", 3960), ("failed", 41), ("already done", 400)])
def test_files_are_filtered_by_what_became_of_them(tab, label, count):
    choice = tab.locator("#states label").filter(has_text=label)
    expect(choice).to_contain_text(f"{count:,}")
    choice.click()
    expect(tab.get_by_role("status")).to_contain_text(f"of {count:,}")


def test_the_keyboard_alone_turns_pages(tab):
    tab.get_by_label("Rows").select_option("500")
    following, status = tab.get_by_role("button", name="Next", exact=True), tab.get_by_role("status")
    following.focus()
    tab.keyboard.press("Enter")
    expect(status).to_have_text("Files 501 to 1,000 of 4,001")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    expect(status).to_have_text("Files 4,001 to 4,001 of 4,001")
    expect(following).to_have_attribute("aria-disabled", "true")
    tab.get_by_label("Page", exact=True).fill("2")
    tab.keyboard.press("Enter")
    expect(status).to_have_text("Files 501 to 1,000 of 4,001")


def test_a_failure_opens_its_files_and_each_its_details(tab, page):
    tab.get_by_role("button", name="process: ValueError").click()
    expect(tab.get_by_role("status")).to_have_text("Files 1 to 40 of 40")
    tab.get_by_role("link", name="file-100", exact=True).last.click()
    record = tab.get_by_role("dialog")
    for words in (
        "row 100 is short",
        "line 1\nline 2",
        "line-count",
        "ab" * 32,
        "10,000 bytes",
        "07:13:21 Asia/Tokyo",
        "22:13:21 UTC",
        "ValueError",
    ):
        expect(record).to_contain_text(words)
    expect(record).to_contain_text('"exact": 12345678901234567890')
    expect(tab).to_have_url(f"{page.as_uri()}#file=file-100")
    record.get_by_role("button", name="Next").click()
    expect(record.get_by_role("heading", level=2)).to_have_text("file-200")
    tab.keyboard.press("Escape")
    expect(record).to_have_count(0)
    expect(tab).to_have_url(page.as_uri())


def test_a_link_to_a_file_opens_it(tab, page):
    tab.goto(f"{page.as_uri()}#file=file-77")
    expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_have_text("file-77")


def test_an_evil_name_stays_text(tab):
    tab.get_by_label("Search").fill("onerror")
    expect(tab.locator("#table tbody tr")).to_have_count(1)
    tab.locator("#table tbody a").click()
    expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_have_text(EVIL)
    expect(tab.get_by_role("dialog")).to_contain_text(f'"{EVIL}": "{EVIL}"')
    assert tab.locator("img").count() == 0


def test_landmarks_headings_and_names_are_there_for_screen_readers(tab):
    for role in ("banner", "navigation", "main", "search"):
        expect(tab.get_by_role(role)).to_have_count(1)
    assert [heading.inner_text() for heading in tab.get_by_role("heading", level=2).all()] == [
        "Outcome",
        "Time",
        "Failures",
        "Files",
        "Configuration",
    ]
    assert all(picture.get_attribute("aria-label") for picture in tab.get_by_role("img").all())
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to the files")).to_be_focused()


def test_a_page_on_paper_is_dark_on_white_and_has_no_controls(tab):
    tab.emulate_media(media="print")
    assert tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(tab.get_by_label("Search")).to_be_hidden()
    expect(tab.locator("#table")).to_be_visible()
