"""The page at /: its parts, and a visit in headless Chromium.

`make test-programs` gets a Chromium and playwright, which drives it; TRTINFER_CHROMIUM is its path.
With TRTINFER_SCREENSHOT a picture of the page is written there.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from classification import COLORS, picture, png, ultralytics
from serving import Served, serving

CHROMIUM = os.environ.get("TRTINFER_CHROMIUM")
SCREENSHOT = os.environ.get("TRTINFER_SCREENSHOT")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving({"colors": ultralytics()}, tmp_path_factory.mktemp("models")) as served:
        yield served


def test_the_page_asks_nobody_else_for_anything(served: Served) -> None:
    for path, kind in (("/", "html"), ("/page.css", "css"), ("/page.js", "javascript")):
        status, body, headers = served.ask("GET", path)
        assert status == 200
        assert kind in headers["content-type"]
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert not re.search(rb"https?://|//[a-z]+\.[a-z]+/", body)


def test_the_page_needs_no_token_but_its_questions_do(tmp_path: Path) -> None:
    with serving({"colors": ultralytics()}, tmp_path, token="secret") as served:
        assert served.ask("GET", "/")[0] == 200
        assert served.ask("GET", "/page.js")[0] == 200
        assert served.ask("GET", "/%70age.js")[0] == 401
        assert served.ask("GET", "/v2/models/stats")[0] == 401
        assert served.ask("POST", "/classify", png(picture("red")))[0] == 401


@pytest.fixture
def visit() -> Iterator[Callable[[Served], Any]]:
    """Opens the page of a server; what it complains about in the browser's console is an error."""
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("TRTINFER_CHROMIUM or playwright is missing: make test-programs")
    from playwright.sync_api import sync_playwright

    problems: list[str] = []

    def open_page(served: Served) -> Any:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"http://{served.address}/")
        return page

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]  # as containers need them
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield open_page
        refused = "Failed to load resource: the server responded with a status of 40"
        assert [text for text in problems if not text.startswith(refused)] == []
        browser.close()


def test_a_visitor_types_the_token(visit: Callable[[Served], Any], tmp_path: Path) -> None:
    with serving({"colors": ultralytics()}, tmp_path, token="secret") as served:
        page = visit(served)
        page.locator("#token").fill("secret")
        page.locator("#token").press("Enter")
        picture_of_red = {"name": "red.png", "mimeType": "image/png", "buffer": png(picture("red"))}
        page.locator("#files").set_input_files([picture_of_red])
        assert "red" in page.locator("article li").first.inner_text()


def test_a_visitor_drops_pictures_and_sees_labels_and_plots(
    visit: Callable[[Served], Any], served: Served
) -> None:
    page = visit(served)
    page.locator("#health.ready").wait_for()
    files = [
        {"name": f"{color}.png", "mimeType": "image/png", "buffer": png(picture(color))}
        for color in COLORS
    ]
    bad = {"name": "<b>bad</b>.png", "mimeType": "image/png", "buffer": b"no image"}
    page.locator("#files").set_input_files([*files, bad])
    page.locator("article .error").wait_for()
    answers = page.locator("article").all()
    assert len(answers) == 4
    for answer, color in zip(answers[1:], reversed(COLORS), strict=True):
        assert answer.locator("h3").inner_text() == f"{color}.png"
        first = answer.locator("li").first.inner_text()
        assert color in first
        assert "100.0 %" in first
    assert answers[0].locator("h3").inner_text() == "<b>bad</b>.png"
    for _ in range(3):
        for _ in range(20):
            assert served.ask("POST", "/classify", png(picture("red")))[0] == 200
        page.wait_for_timeout(1000)
    assert re.fullmatch(r"[1-9]\d* samples/s", page.locator("#throughput").inner_text())
    assert re.fullmatch(r"\d+\.\d\d ms", page.locator("#latency").inner_text())
    for plot in ("throughput", "latency", "batch"):
        painted = page.evaluate(
            f"""() => {{
                const canvas = document.getElementById("{plot}-plot");
                const area = [0, 0, canvas.width, canvas.height];
                return canvas.getContext("2d").getImageData(...area).data.some((value) => value);
            }}"""
        )
        assert painted, plot
    if SCREENSHOT:
        page.screenshot(path=SCREENSHOT)
