"""The live token view in a real JupyterLab: a notebook that makes tables by hand and opens them, driven in a real browser."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import TimeoutError

from opsd_lab.tokens.table import COLUMNS

ROOT = Path(__file__).parents[2]
CELLS = [
    "from tests.browser.test_explorer_browser import WORDS, make_table\n"
    "from tests.browser.test_token_view_browser import HOSTILE\n"
    "from opsd_lab.tokens.table import TokenTable\n"
    "from opsd_lab.token_view import explore\n"
    "tokens = [*WORDS, *HOSTILE] * 2\n"
    "tables = {name: make_table(tokens, i) for i, name in enumerate(('reference', 'other problem'))}\n"
    "view = explore(tables)\n"
    "view",
    "print('pinned at', view.pinned)",
    "both = explore(TokenTable.concatenate([make_table(WORDS, 1), make_table(WORDS[:5], 2)]))\nboth",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "live.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.token=", "--ServerApp.password=", "--LabApp.news_url=None", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--ServerApp.port_retries=0"]
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT)}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            for _ in range(240):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def lab(chromium, server):
    context = chromium.new_context(viewport={"width": 1400, "height": 1100}, accept_downloads=True)
    page = context.new_page()
    page.dialogs = []
    page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"{server}/lab/tree/live.ipynb", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    choice = page.get_by_role("button", name="Select Kernel", exact=True)
    with contextlib.suppress(TimeoutError):  # it asks only where it does not find the notebook's own kernel
        choice.wait_for(timeout=5_000)
        choice.click()
    for _ in range(10):  # JupyterLab takes the menu's order only once it has settled
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(3000)
        if "[ ]:" not in page.locator(".jp-InputPrompt").first.text_content():
            break
    try:
        page.locator(".opsd-live").first.wait_for(timeout=120_000)
    except TimeoutError as error:
        pytest.fail(f"{error}\n{page.locator('.jp-Notebook').inner_text()}")
    page.get_by_text("pinned at None", exact=True).wait_for(timeout=60_000)
    yield page
    context.close()


def view_of(lab):
    return lab.locator(".opsd-live").first


def test_the_widget_shows_every_token_as_text_and_runs_none(lab):
    texts = view_of(lab).locator(".panel").first.locator(".t").all_text_contents()
    assert "</script>" in texts and "<img src=x onerror=window.pwned=2;alert(2)>" in texts and len(texts) % 2 == 0
    assert lab.dialogs == [] and lab.evaluate("window.pwned") is None


def test_hovering_pinning_and_the_other_panel_work_in_jupyterlab(lab):
    panels = view_of(lab).locator(".panel")
    panels.nth(0).locator(".t").nth(4).hover()
    assert panels.nth(1).locator(".t.at").get_attribute("data-i") == "4"
    panels.nth(1).locator(".t").nth(6).click()
    assert panels.nth(0).locator(".t.pin").get_attribute("data-i") == "6"
    assert view_of(lab).locator(".detail table").count() == 4


def test_the_keyboard_stays_with_the_view_and_not_with_the_notebook(lab):
    area = view_of(lab).locator(".tokens").first
    cells = lab.locator(".jp-Notebook .jp-Cell").count()
    area.press("Home")
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        area.press(key)
    assert view_of(lab).locator(".panel").first.locator(".t.pin").get_attribute("data-i") == "2"
    area.press("n")
    assert view_of(lab).locator(".panel").first.locator(".t.at").get_attribute("data-i") == "12"
    assert lab.locator(".jp-Notebook .jp-Cell").count() == cells


def test_python_reads_back_what_is_pinned(lab):
    view_of(lab).locator(".panel").first.locator(".t").nth(9).click()
    lab.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    lab.keyboard.press("Control+Enter")
    lab.get_by_text("pinned at 9", exact=True).wait_for(timeout=30_000)


def test_filters_dim_tokens_in_jupyterlab(lab):
    view_of(lab).locator("summary").click()
    box = view_of(lab).get_by_role("checkbox", name="number", exact=True)
    box.uncheck()
    assert view_of(lab).locator(".t.dim").count() > 0
    box.check()
    assert view_of(lab).locator(".t.dim").count() == 0


def test_both_exports_come_out_of_jupyterlab(lab, chromium, tmp_path):
    with lab.expect_download() as download:
        view_of(lab).get_by_text("save table").click()
    assert Path(download.value.path()).read_text(encoding="utf-8").splitlines()[0] == ",".join(["table", *COLUMNS])
    with lab.expect_download() as download:
        view_of(lab).get_by_text("save page").click()
    page = tmp_path / "page.html"
    page.write_bytes(Path(download.value.path()).read_bytes())
    alone = chromium.new_page()
    alone.goto(page.as_uri())
    alone.wait_for_selector(".t")
    assert alone.locator(".t").all_text_contents() == view_of(lab).locator(".t").all_text_contents()
    alone.close()


def test_another_rollout_is_fetched_from_the_kernel(lab):
    other = lab.locator(".opsd-live").nth(1)
    other.scroll_into_view_if_needed()
    other.get_by_label("rollout").first.select_option("1")
    lab.wait_for_function("document.querySelectorAll('.opsd-live')[1].querySelectorAll('.t').length === 5", timeout=20_000)


def test_the_accessibility_check_finds_nothing_in_jupyterlab(lab, axe):
    assert axe(lab, ".opsd-live") == []
