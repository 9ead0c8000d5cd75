import os
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


NAMES = ("chromium", "chromium-browser", "google-chrome")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def find_chromium(environ, which):
    """Return the browser that the variable CHROMIUM names, or the system's; with neither, fail where CI is set and skip elsewhere."""
    path = environ.get("CHROMIUM") or next((found for name in NAMES if (found := which(name))), None)
    if path is None:
        reason = f"no browser: install one of {', '.join(NAMES)}, or name one in CHROMIUM"
        if environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium."""
    path = find_chromium(os.environ, shutil.which)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe():
    """`axe(page, selector=None)`: what breaks WCAG 2.1 A or AA in a page or a part of it, a line for each element."""
    engine = Axe()

    def violations(page, selector=None):
        options = {"runOnly": {"type": "tag", "values": WCAG}, "resultTypes": ["violations"]}
        found = engine.run(page, selector, options).response["violations"]
        return [f"{rule['id']}: {node['target']}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]

    return violations


@pytest.fixture
def browser_finder():
    """`find_chromium` itself, for the test of what it decides."""
    return find_chromium
