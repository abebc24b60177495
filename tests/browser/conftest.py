"""The browser that all tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.lab import HANGING

MILLISECONDS = HANGING * 1000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Started once: each test has a context, so cookies, storage and cache, of its own. Playwright runs an event loop
    in this thread, which Django takes for asynchronous code; here it is none."""
    expect.set_options(timeout=MILLISECONDS)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--headless=new"], timeout=MILLISECONDS
        )
        yield browser
        browser.close()
