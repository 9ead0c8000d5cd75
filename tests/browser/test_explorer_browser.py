"""The live token view as a page of its own, driven in a real browser."""

import csv
import io
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from opsd_lab.token_view.explorer import explore
from opsd_lab.token_view.visible import visible_text
from opsd_lab.tokens.table import COLUMNS, TokenTable
from opsd_lab.tokens.top import TopTokens
from tests.browser.test_token_view_browser import HOSTILE

WORDS = [" the", " number", " 7", " +", " 5", " =", " 12", ".\n", " So", " we", " add", "\n", "<think>", " wait"]
LABELS = ("correct", "incorrect", "unverifiable")


def make_table(tokens, seed=0, k=20, rollout=0, **columns):
    n = len(tokens)
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {name: 0.0 if kind == "float64" else 0 if kind == "int64" else "" for name, kind in COLUMNS.items()}, index=range(n)
    )
    frame = frame.assign(
        token=list(tokens), position=range(n), token_id=np.arange(n) % 50, rollout=rollout, problem_id="p<1>", weight=1.0
    )
    for name in ("divergence", "student_entropy", "teacher_entropy"):
        frame[name] = rng.exponential(size=n)
    for side in ("student", "teacher"):
        frame[f"{side}_logprob"] = -rng.exponential(size=n)
    step = np.where(np.arange(n) % 12 < 8, np.arange(n) // 12, -1)
    label = np.where(step < 0, "", np.array(LABELS)[np.arange(n) // 12 % 3])
    phase = np.where(np.arange(n) < 12, "before", np.where(np.arange(n) < 20, "first_error", "after"))
    frame = frame.assign(gap=frame["teacher_logprob"] - frame["student_logprob"], step=step, label=label, error_phase=phase)
    frame = frame.assign(label_source=np.where(step < 0, "", "arithmetic")).assign(**columns)
    return TokenTable(frame, make_top(rng, n, k) if k else None)


def make_top(rng, n, k):
    logprobs = -np.sort(rng.exponential(size=(4, n, k)), axis=-1)
    ids = np.array([[rng.permutation(60)[:k] for _ in range(n)] for _ in range(2)])
    texts = {i: HOSTILE[i % len(HOSTILE)] or "\n" for i in range(60)}
    return TopTokens(ids[0], logprobs[0], logprobs[1], ids[1], logprobs[2], logprobs[3], texts)


@pytest.fixture
def open_page(chromium, tmp_path):
    contexts = []

    def opened(view, **options):
        path = view.save(tmp_path / f"view{len(contexts)}.html")
        context = chromium.new_context(viewport={"width": 1300, "height": 1000}, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.alarms, page.requests = [], []
        page.on("dialog", lambda dialog: (page.alarms.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: page.alarms.append(str(error)))
        page.on("console", lambda entry: page.alarms.append(entry.text) if entry.type in ("error", "warning") else None)
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector(".t")
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def tables():
    tokens = (WORDS * 10)[:120]
    return {"reference": make_table(tokens, 1), "other problem": make_table(tokens, 2)}


def tokens_of(page, panel=0):
    return page.locator(".panel").nth(panel).locator(".t")


def at(page, panel=0):
    return page.locator(".panel").nth(panel).locator(".t.at").get_attribute("data-i")


def test_hostile_tokens_show_as_text_and_run_nothing(open_page):
    tokens = list(HOSTILE) * 3
    page = open_page(explore(make_table(tokens), titles={0: "<img src=x onerror=alert(9)>"}))
    for i, token in enumerate(HOSTILE):
        shown = tokens_of(page).nth(i).text_content()
        assert shown == (visible_text(token) if token.strip(" ") or not token else "·" * len(token))
        tokens_of(page).nth(i).click()
    assert page.locator(".panel h3").text_content() == "<img src=x onerror=alert(9)>"
    assert page.alarms == [] and page.evaluate("window.pwned") is None
    assert [url for url in page.requests if not url.startswith("file:")] == []
    assert page.locator(".opsd-live img, .opsd-live script").count() == 0


def test_hovering_previews_a_token_and_a_click_pins_it_until_escape(open_page, tables):
    page = open_page(explore(tables["reference"]))
    row = tables["reference"].frame.iloc[5]
    tokens_of(page).nth(5).hover()
    assert f"position {row['position']}" in page.locator(".status").text_content()
    tokens_of(page).nth(5).click()
    tokens_of(page).nth(40).hover()
    detail = page.locator(".detail").text_content()
    assert "position 5" in detail and "class operator" in detail and "step 1, ✓ correct, by arithmetic" in detail
    assert tokens_of(page).nth(5).get_attribute("aria-selected") == "true"
    page.locator(".tokens").first.press("Escape")
    assert page.locator(".t.pin").count() == 0


def test_both_lists_of_the_most_probable_tokens_stand_side_by_side_with_the_written_one_marked(open_page, tables):
    table = tables["reference"]
    page = open_page(explore(table))
    tokens_of(page).nth(7).click()
    lists = page.locator(".detail table")
    assert lists.count() == 2
    for side, shown in zip(("student", "teacher"), (lists.nth(0), lists.nth(1)), strict=True):
        ids, logprobs = (getattr(table.top, f"{side}_top_{kind}")[7] for kind in ("ids", "logprobs"))
        written = int(table.frame["token_id"][7])
        rows = shown.locator("tbody tr").all()
        assert len(rows) == 20 + (written not in ids)
        cells = rows[3].locator("th, td").all_text_contents()
        assert cells[0] == "3" and cells[3].replace("−", "-") == f"{logprobs[3]:.2f}"
        assert cells[2].startswith(f"{100 * np.exp(logprobs[3]):.3g}"[:3])
        marked = shown.locator("tr.sampled")
        assert marked.count() == 1 and "◂" in marked.text_content()
        if written in ids:
            assert marked.locator("td").first.text_content() == str(list(ids).index(written))


def test_without_the_lists_the_view_says_how_to_get_them(open_page):
    page = open_page(explore(make_table(WORDS, k=0)))
    tokens_of(page).first.click()
    assert "score the rollouts with top_k=20" in page.locator(".detail").text_content()


def test_the_keyboard_reaches_every_token_from_one_tab_stop(open_page, tables):
    page = open_page(explore(tables["reference"]))
    stops = page.evaluate("[...document.querySelectorAll('.panel [tabindex=\"0\"]')].length")
    assert stops == 1
    area = page.locator(".tokens").first
    area.focus()
    for key, where in (
        ("ArrowRight", "1"),
        ("ArrowRight", "2"),
        ("ArrowLeft", "1"),
        ("End", "119"),
        ("Home", "0"),
        ("ArrowLeft", "0"),
    ):
        area.press(key)
        assert at(page) == where, key
        assert area.get_attribute("aria-activedescendant") == tokens_of(page).nth(int(where)).get_attribute("id")
    area.press("ArrowDown")
    top = [tokens_of(page).nth(i).bounding_box()["y"] for i in (0, int(at(page)))]
    assert top[1] > top[0]
    area.press("ArrowUp")
    assert abs(tokens_of(page).nth(int(at(page))).bounding_box()["y"] - tokens_of(page).first.bounding_box()["y"]) < 4
    area.press("Enter")
    assert page.locator(".t.pin").count() == 1 and page.locator(".status").text_content().startswith("pinned: ")
    area.press("Escape")
    assert page.locator(".t.pin").count() == 0


def test_the_jump_keys_go_to_incorrect_steps_and_to_the_largest_values(open_page, tables):
    frame = tables["reference"].frame
    page = open_page(explore(tables["reference"]))
    area = page.locator(".tokens").first
    area.focus()
    starts = [i for i in range(120) if frame["label"][i] == "incorrect" and (i == 0 or frame["step"][i] != frame["step"][i - 1])]
    for start in (*starts, starts[0]):
        area.press("n")
        assert at(page) == str(start)
    order = frame["gap"].abs().sort_values(ascending=False).index
    area.press("Home")
    for place in order[:3]:
        area.press("g")
        assert at(page) == str(place)
        box, inside = area.bounding_box(), tokens_of(page).nth(place).bounding_box()
        assert box["y"] - 1 <= inside["y"] <= box["y"] + box["height"], "it scrolls into view"


def test_two_panels_of_the_same_completion_move_together_and_share_one_scale(open_page, tables):
    page = open_page(explore(tables))
    assert "panels linked token by token" in page.locator(".legend").text_content()
    tokens_of(page, 0).nth(17).hover()
    assert at(page, 1) == "17"
    tokens_of(page, 1).nth(30).click()
    assert page.locator(".t.pin").count() == 2 and page.locator(".detail table").count() == 4
    page.locator(".panel select").nth(1).select_option("reference")
    colours = [tokens_of(page, p).nth(3).evaluate("e => e.style.background") for p in (0, 1)]
    assert colours[0] == colours[1]


def test_other_completions_are_not_linked(open_page, tables):
    other = make_table(WORDS * 3, 5)
    page = open_page(explore({"before": tables["reference"], "after": other}))
    assert "panels not linked: other completions" in page.locator(".legend").text_content()
    tokens_of(page, 0).nth(17).click()
    assert page.locator(".t.pin").count() == 1 and page.locator(".panel").nth(1).locator(".t.at").count() == 0


def test_the_curve_and_the_tokens_follow_each_other(open_page, tables):
    page = open_page(explore(tables["reference"]))
    curve = page.locator("svg.curve").first
    box = curve.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 100.5 / 120, box["y"] + 20)
    assert at(page) == "100"
    page.mouse.click(box["x"] + box["width"] * 60.5 / 120, box["y"] + 20)
    assert page.locator(".t.pin").get_attribute("data-i") == "60"
    tokens_of(page).nth(64).hover()
    lines = curve.locator("line[visibility=visible]").evaluate_all("all => all.map(line => line.getAttribute('x1'))")
    assert lines == ["60.5", "64.5"]


def test_another_column_brings_its_own_scale_and_sums(open_page, tables):
    frame = tables["reference"].frame
    page = open_page(explore(tables["reference"]))
    before = page.locator(".ticks").text_content()
    page.get_by_label("colour by").select_option("student_entropy")
    assert page.locator(".ticks").text_content() != before and "student entropy" in page.locator(".legend").text_content()
    inside = frame.loc[frame["step"] == 1, "student_entropy"]
    chip = page.locator(".chip").nth(1).text_content().replace("−", "-")
    assert chip == f"step 2 ✗ incorrect (arithmetic), the first error, Σ +{inside.sum():.2f}, mean +{inside.mean():.2f}"


def test_filters_dim_what_they_leave_out_and_count_the_rest(open_page, tables):
    frame = tables["reference"].frame
    page = open_page(explore(tables["reference"]))
    page.locator("summary").click()
    page.get_by_role("checkbox", name="✓ correct").uncheck()
    left = int((frame["label"] != "correct").sum())
    assert page.locator(".t:not(.dim)").count() == left and f"{left} of 120 tokens" in page.locator(".bar").text_content()
    page.get_by_role("checkbox", name="number", exact=True).uncheck()
    assert page.locator(".t:not(.dim)").count() == int(
        ((frame["label"] != "correct") & ~frame["token"].isin([" 7", " 5", " 12"])).sum()
    )


def test_the_saved_table_is_the_table_cell_by_cell(open_page):
    table = make_table([*HOSTILE, 'a,"b"\r\n', "=1+1"], 3)
    page = open_page(explore(table))
    with page.expect_download() as download:
        page.get_by_text("save table").click()
    rows = list(csv.reader(io.StringIO(Path(download.value.path()).read_bytes().decode(), newline="")))
    assert rows[0] == ["table", *COLUMNS] and len(rows) == 1 + len(table)
    for name in COLUMNS:
        column = [row[rows[0].index(name)] for row in rows[1:]]
        expected = table.frame[name].tolist()
        assert [type(value)(cell) for cell, value in zip(column, expected, strict=True)] == expected, name


def test_the_saved_page_is_the_view_again(open_page, tables, chromium, tmp_path):
    page = open_page(explore(tables))
    with page.expect_download() as download:
        page.get_by_text("save page").click()
    again = chromium.new_page()
    copy = tmp_path / "copy.html"
    copy.write_bytes(Path(download.value.path()).read_bytes())
    again.goto(copy.as_uri())
    again.wait_for_selector(".t")
    assert again.locator(".t").all_text_contents() == page.locator(".t").all_text_contents()
    again.close()


def test_every_rollout_can_be_chosen(open_page):
    both = TokenTable.concatenate([make_table(WORDS, 1), make_table(WORDS[:5], 2)])
    page = open_page(explore(both, rollout=1))
    assert tokens_of(page).count() == 5
    page.get_by_label("rollout").first.select_option("0")
    assert tokens_of(page).count() == len(WORDS)


@pytest.mark.parametrize("width", [1300, 420])
def test_the_accessibility_check_finds_nothing(open_page, tables, axe, width):
    page = open_page(explore(tables))
    page.set_viewport_size({"width": width, "height": 900})
    page.locator("summary").click()
    tokens_of(page).nth(9).click()
    assert axe(page) == []


def test_a_long_rollout_opens_and_its_time_is_printed(open_page, capsys):
    tokens = (WORDS * 150)[:2048]
    view = explore(make_table(tokens))
    started = time.perf_counter()
    page = open_page(view)
    seconds, inside = time.perf_counter() - started, page.evaluate("performance.now()")
    assert tokens_of(page).count() == 2048
    with capsys.disabled():
        print(f"\n2,048 tokens with 20 most probable of both sides: open after {seconds:.2f} s ({inside:.0f} ms in the page)")


def test_newlines_break_lines_and_an_emoji_split_over_tokens_shows_where_it_is_complete(open_page):
    page = open_page(explore(make_table(["a", "\n", "b", "", "🙂", "c\nd", "<think>"])))
    texts = tokens_of(page).all_text_contents()
    assert texts == ["a", "⏎", "b", "∅", "🙂", "c⏎\nd", "<think>"]
    tops = [tokens_of(page).nth(i).bounding_box()["y"] for i in (0, 2)]
    assert tops[1] > tops[0]


def test_the_page_may_load_nothing(tables, tmp_path):
    page = explore(tables).save(tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and not re.search(r"(?:src|href)=\"http", page)
