"""A real browser for tests: Debian's Chromium, driven by playwright."""

import os
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Sound goes nowhere, videos may not start by themselves, and root needs no sandbox.
ARGUMENTS = ["--no-sandbox", "--mute-audio", "--autoplay-policy=user-gesture-required"]


def _unavailable(reason):
    """Users without a browser skip these tests and read why; `.ci/run` demands them."""
    if os.environ.get("REQUIRE_BROWSER"):
        pytest.fail(f"{reason}, but REQUIRE_BROWSER is set.")
    pytest.skip(f"{reason}; `.ci/run` says how to install it.")


@pytest.fixture(scope="session")
def browser():
    """A Chromium without network; make pages with `browser.new_context(...).new_page()`."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("playwright is not installed")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        _unavailable("Chromium is not installed")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """``open_page(path, query="", **context)``: a file in a fresh offline profile.

    Errors of its scripts and requests of anything but files fail the test at its end.
    """
    contexts, complaints = [], []

    def watch(page):
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url)
                if not request.url.startswith(("file:", "blob:", "data:"))
                else None
            ),
        )
        return page

    def open_file(path, query="", **options):
        context = browser.new_context(offline=True, accept_downloads=True, **options)
        contexts.append(context)
        page = watch(context.new_page())
        page.set_default_timeout(15_000)
        page.goto(Path(path).resolve().as_uri() + query)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not complaints
