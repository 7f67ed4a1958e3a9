"""The page in a real browser: it asks the service, shows what it answers, and fits a phone."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright

from recsys.config import SecurityConfig, ServeArgs
from recsys.serving.http import build_http
from recsys.serving.models import Models
from tests.serving.conftest import make_service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.ray,  # the toy checkpoint is trained by Ray
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def url(toy_args: ServeArgs, toy_models: Models) -> Iterator[str]:
    """The application behind a real port."""
    args = toy_args.model_copy(update={"security": SecurityConfig(require_auth=False)})
    app = build_http(make_service(args, toy_models))
    config = uvicorn.Config(app, port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    [listening] = server.servers
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """Errors in the page's script and refused requests; those that are left fail the test."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def page(url: str, faults: list[str]) -> Iterator[Page]:
    """The page, open."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=WIDE)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.goto(url)
        yield page
        browser.close()


def add_item(page: Page, title: str) -> None:
    """Type a title as a person does, and take what is suggested."""
    page.fill("#add", "")
    page.locator("#add").press_sequentially(title)
    expect(page.locator("#history li").last).to_contain_text(title)


def test_a_person_tries_the_recommender(page: Page, toy_models: Models, tmp_path: Path) -> None:
    recommender = toy_models.of("live").recommender
    expect(page.locator("#health")).to_have_text(f"ready, {recommender.num_items} items")
    expect(page.locator("#recommended li")).to_have_count(10)
    expect(page.locator("#took")).to_contain_text("popular")

    page.locator("#recommended button").first.click()
    expect(page.locator("#took")).to_contain_text("by the model")
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#recommended .why").first).to_contain_text("Because")

    page.fill("#text", "red hat")
    page.click("#search-form button")
    expect(page.locator("#plain li").first).to_be_visible()
    assert page.locator("#personal li").count() == page.locator("#plain li").count() > 0

    page.click("#clear")
    expect(page.locator("#history li")).to_have_count(0)
    expect(page.locator("#took")).to_contain_text("popular")
    page.screenshot(path=tmp_path / "wide.png", full_page=True)
    assert (tmp_path / "wide.png").stat().st_size > 10_000


def test_an_item_is_added_by_its_title(page: Page, toy_models: Models) -> None:
    expect(page.locator("#recommended li")).to_have_count(10)
    title = page.locator("#recommended button").nth(3).inner_text()
    add_item(page, title)
    expect(page.locator("#took")).to_contain_text("by the model")


def test_it_fits_a_phone(page: Page) -> None:
    page.set_viewport_size(PHONE)
    expect(page.locator("#recommended li")).to_have_count(10)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["width"]
    left = page.locator("section").first.bounding_box()
    assert left is not None
    assert left["width"] > 0.8 * PHONE["width"]


def test_what_goes_wrong_is_told(page: Page, faults: list[str]) -> None:
    expect(page.locator("#recommended li")).to_have_count(10)
    page.route("**/v1/recommend", lambda route: route.abort())
    page.locator("#recommended button").first.click()
    expect(page.locator("#problem")).to_be_visible()
    assert len(faults) == 1  # the browser's own word for the request that was cut off
    faults.clear()
