"""The page in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dmask_mobile import api
from tests.dmask_mobile.report.factory import HOSTILE, trained_run, whole_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
THEME = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(244, 246, 249)", "rgb(15, 21, 28)"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    runs = [whole_run(folder / "a").path, trained_run(folder / "b").path]
    return api.report(runs, folder / "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Seen:
    """The forbidden actions of a page: requests, console messages, errors, dialogs."""

    def __init__(self, page: Page, path: Path) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("dialog", lambda dialog: self.messages.append(dialog.message))
        page.route("**/*", lambda route: route.continue_() if route.request.url == path.as_uri() else route.abort())
        page.goto(path.as_uri())
        self.path = path

    def check(self) -> None:
        elsewhere = [url for url in self.requests if url != self.path.as_uri() and not url.startswith("data:")]
        assert (elsewhere, self.messages) == ([], [])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_and_nobody_is_called(browser: Browser, path: Path, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    seen = Seen(page, path)
    assert page.evaluate(THEME) == (LIGHT if scheme == "light" else DARK)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    found = Axe().run(page).response
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    seen.check()
    page.close()


def test_the_theme_is_switched_and_kept(browser: Browser, path: Path) -> None:
    page = browser.new_page(color_scheme="light")
    seen = Seen(page, path)
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(THEME) == DARK
    page.reload()
    assert page.evaluate(THEME) == DARK
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(THEME) == LIGHT
    seen.check()
    page.close()


def test_pointer_and_keyboard_show_details(browser: Browser, path: Path) -> None:
    page = browser.new_page()
    seen = Seen(page, path)
    tip, picture = page.locator("#tip"), page.locator("svg[data-marks]").first
    assert tip.is_hidden()
    picture.locator(".mark").nth(1).hover()
    assert "stage1.block1: inverted residual" in tip.inner_text()
    assert "multiply-adds" in tip.inner_text()
    picture.locator(".mark").first.focus()
    assert tip.inner_text().startswith("stem:")
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("stage1.block1:")
    page.keyboard.press("End")
    assert tip.inner_text().startswith("head:")
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    seen.check()
    page.close()


def test_the_raw_data_is_saved(browser: Browser, path: Path) -> None:
    page = browser.new_page()
    seen = Seen(page, path)
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "dmask-report.json"
    assert '"format":"dmask-report"' in Path(download.value.path()).read_text()
    seen.check()
    page.close()


def test_it_works_without_javascript(browser: Browser, path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    seen = Seen(page, path)
    assert page.get_by_role("heading", name="Verdict").first.is_visible()
    assert page.locator("svg.chart").first.is_visible()
    assert page.locator("#theme").is_hidden()
    page.get_by_text("All 9 checks").click()
    assert page.get_by_role("region", name="All checks of run 1").is_visible()
    assert page.get_by_text(HOSTILE).first.is_visible()
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "dmask-report.json"
    seen.check()
    context.close()


def test_it_prints(browser: Browser, path: Path) -> None:
    page = browser.new_page()
    seen = Seen(page, path)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.get_by_role("navigation").is_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(23, 33, 44)"  # dark on paper
    seen.check()
    page.close()
