import time

import numpy as np
import pandas as pd
import pytest

from opsd_lab.figures.idea import draw_idea
from opsd_lab.token_view import contexts_view, render, render_views
from opsd_lab.token_view.visible import literal, visible_text
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.top import TopTokens

HOSTILE = (
    "<think>",
    "</script>",
    "<script>window.pwned=1;alert(1)</script>",
    "<img src=x onerror=window.pwned=2;alert(2)>",
    '"onmouseover="window.pwned=3',
    "&lt;",
    "'",
    "</style><svg onload=alert(4)>",
    "</bdi></div>",
    "\t",
    "",
    "\x00",
    "\u202etxet",
    "\u0301",
    "שלום",
    "{{7*7}}",
    "<!--",
    "]]>",
    "    x",
)
STEPS = {
    "step": [-1, 0, 0, 1, 1, 2, 2, -1],
    "label": ["", "correct", "correct", "incorrect", "incorrect", "unverifiable", "unverifiable", ""],
    "label_source": ["", *["arithmetic"] * 6, ""],
    "error_phase": ["before"] * 3 + ["first_error"] * 2 + ["after"] * 3,
    "outcome": "incorrect",
}
EIGHT = ["<think>", "2", "+2", "=", "5", ",", "</think>", "\n"]


def make_table(tokens, **columns):
    n = len(tokens)
    gaps = [(i % 7 - 3) * 0.4 for i in range(n)]
    fixed = dict.fromkeys(("divergence", "clipped", "loss", "student_entropy", "teacher_entropy"), 0.1)
    frame = pd.DataFrame({"token": list(tokens), "gap": gaps, "position": range(n), "token_id": range(n)})
    frame = frame.assign(student_logprob=-2.0, teacher_logprob=frame["gap"] - 2.0, rollout=0, problem_id="p", weight=1.0)
    return TokenTable(frame.assign(student_rank=0, teacher_rank=1, step=-1, label="", **fixed).assign(**columns))


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.problems = []
    page.on("dialog", lambda dialog: (page.problems.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda entry: page.problems.append(entry.text) if entry.type == "error" else None)
    page.on("request", lambda request: page.problems.append(request.url) if "://" in request.url else None)
    yield page
    context.close()


@pytest.fixture
def unscripted(chromium):
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_hostile_tokens_run_nothing_and_show_as_themselves(page):
    # Without the saved page's security policy: escaping alone has to hold, as it does inside a notebook.
    views = (
        render(make_table(HOSTILE, problem_id=HOSTILE[2])).html
        + contexts_view("".join(HOSTILE), "".join(HOSTILE) + HOSTILE[2], privileged=HOSTILE[2]).html
    )
    page.set_content(f"<!DOCTYPE html><body>{views}</body>")
    page.wait_for_timeout(300)
    tokens = page.locator(".opsd-tokens bdi")
    assert tokens.all_text_contents() == [visible_text(token) for token in HOSTILE]
    tokens.nth(4).hover()
    assert page.evaluate("window.pwned") is None
    assert page.locator("script, img, svg, iframe").count() == 0
    assert page.problems == []


def test_tooltips_hold_the_hostile_token_as_a_literal(page):
    page.set_content(render(make_table(HOSTILE)).html)
    titles = page.locator(".opsd-tokens bdi").evaluate_all("all => all.map(e => e.title)")
    assert [title.partition("  (position")[0] for title in titles] == [literal(token) for token in HOSTILE]


def test_a_right_to_left_override_does_not_reorder_its_neighbours(page):
    page.set_content(render(make_table(["one", "\u202etwo", "שלום", "four"])).html)
    lefts = [box.bounding_box()["x"] for box in page.locator(".opsd-tokens bdi").all()]
    assert lefts == sorted(lefts)


def test_a_newline_breaks_the_line_after_its_mark(page):
    page.set_content(render(make_table(["one", "\n", "two"])).html)
    one, mark, two = (box.bounding_box() for box in page.locator(".opsd-tokens bdi").all())
    assert mark["y"] == pytest.approx(one["y"], abs=2) and two["y"] > one["y"] + 15


def test_a_saved_page_works_without_scripts_and_by_keyboard(unscripted, tmp_path):
    path = render(make_table(["7", " +", " 5"]), titles=["Adds"]).save(tmp_path / "view.html")
    unscripted.goto(path.as_uri())
    assert unscripted.title() == "Token view: Adds"
    assert unscripted.locator(".opsd-tokens").inner_text().replace("\n", "") == "7 + 5"
    assert not unscripted.locator("table").is_visible()
    unscripted.keyboard.press("Tab")
    unscripted.keyboard.press("Enter")
    assert unscripted.locator("table").is_visible()
    assert unscripted.locator("tbody tr").count() == 3
    assert unscripted.get_by_role("row", name="' +'").inner_text().split("\t")[2] == "−0.80"


def test_a_comparison_of_views_works_without_scripts(unscripted, tmp_path):
    views = {"reference": make_table(EIGHT, **STEPS), "answer only": make_table(EIGHT, **STEPS)}
    unscripted.goto(render_views(views, rollout=0).save(tmp_path / "views.html").as_uri())
    assert unscripted.locator("figcaption bdi").all_text_contents() == ["reference", "answer only"]
    shown = unscripted.locator(".opsd-tokens").first.inner_text()
    for words in ("step 1 ✓ correct (arithmetic):", "step 2 ✗ incorrect (arithmetic), first error:", "after the first error:"):
        assert words in shown
    unscripted.locator("summary").nth(1).click()
    assert [table.is_visible() for table in unscripted.locator("table").all()] == [False, True]
    assert "first error" in unscripted.locator("table").nth(1).inner_text()


def test_a_thought_reads_as_text_between_its_marks(page):
    page.set_content(render(make_table(["<think>", "\n", "Let", " me", "</think>", "Yes"])).html)
    assert page.locator(".opsd-tokens").inner_text() == "<think>⏎\nLet me</think>Yes"


def test_a_character_split_over_tokens_shows_on_the_last_and_a_mark_on_the_others(page):
    page.set_content(render(make_table(["", "", "🙂", "<0xE2>", "\ufffd"])).html)
    assert page.locator(".opsd-tokens bdi").all_text_contents() == ["∅", "∅", "🙂", "<0xE2>", "\ufffd"]
    assert all(box.bounding_box()["width"] > 5 for box in page.locator(".opsd-tokens bdi").all())


def test_the_first_error_is_filled_and_readable_and_the_underline_lies_under_the_tokens_alone(page):
    page.set_content(render(make_table(EIGHT, **STEPS)).html)
    style = "all => all.map(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])"
    chips = page.locator(".opsd-step").evaluate_all(style)
    assert chips[0][1] == chips[2][1] == "rgb(255, 255, 255)"
    assert chips[1] == ["rgb(255, 255, 255)", "rgb(134, 25, 143)"]
    chip, band = page.locator(".opsd-step").first, page.locator(".opsd-step + span").first
    assert band.bounding_box()["x"] >= chip.bounding_box()["x"] + chip.bounding_box()["width"]


def test_a_long_rollout_opens_with_every_token(page, tmp_path):
    n, k = 2048, 20
    rng = np.random.default_rng(0)
    table = make_table(rng.choice([" the", " answer", "1", "7", " =", " +", ".\n", " therefore", " Natalia"], n))
    ids, logprobs = np.argsort(rng.random((n, 50)))[:, :k], -np.sort(rng.exponential(2, (n, k)))
    top = TopTokens(ids, logprobs, logprobs, ids, logprobs, logprobs, {i: f" word{i}" for i in range(50)})
    path = render(TokenTable(table.frame, top)).save(tmp_path / "long.html")
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    print(f"{n} tokens, {path.stat().st_size / 1e6:.2f} MB: drawn after {time.perf_counter() - start:.2f} s")
    assert page.locator(".opsd-tokens bdi").count() == n


def accessible_views():
    table = make_table(EIGHT, **STEPS).with_columns(weight=[0.0] + [1.0] * 7)
    long = TokenTable.concatenate([table, make_table(HOSTILE)])
    return {
        "render": render(long, scale=0.5),
        "render by divergence": render(long, column="divergence", scale=0.05),
        "render_views": render_views({"reference": table, "<b>": table}, rollout=0),
        "contexts_view": contexts_view("What is 2 + 2?", "What is 2 + 2? It is 4.", privileged="It is 4."),
    }


@pytest.mark.parametrize("name", ["render", "render by divergence", "render_views", "contexts_view"])
def test_nothing_breaks_the_rules_of_accessibility(page, axe, name, tmp_path):
    page.goto(accessible_views()[name].save(tmp_path / "view.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert axe(page) == []


def test_the_check_of_accessibility_finds_what_is_wrong(page, axe):
    page.set_content('<html lang="en"><title>x</title><p id="pale" style="color:#ccc;background:#fff">pale</p><b>x</b></html>')
    assert len(found := axe(page)) == 1 and found[0].startswith("color-contrast: ['#pale']")
    assert len(axe(page, "#pale")) == 1 and axe(page, "b") == []


@pytest.mark.parametrize("environ", [{"CI": "true"}, {"CI": "1", "CHROMIUM": ""}])
def test_a_missing_browser_is_a_failure_in_continuous_integration(browser_finder, environ):
    with pytest.raises(pytest.fail.Exception, match="install one of chromium, "):
        browser_finder(environ, lambda name: None)


@pytest.mark.parametrize("environ", [{}, {"CI": ""}])
def test_a_missing_browser_skips_elsewhere_and_says_why(browser_finder, environ):
    with pytest.raises(pytest.skip.Exception, match="install one of chromium, "):
        browser_finder(environ, lambda name: None)


def test_the_named_browser_is_taken_before_the_systems(browser_finder):
    assert browser_finder({"CHROMIUM": "/opt/mine", "CI": "true"}, lambda name: f"/usr/bin/{name}") == "/opt/mine"
    assert browser_finder({"CI": "true"}, {"google-chrome": "/usr/bin/google-chrome"}.get) == "/usr/bin/google-chrome"


def test_colours_and_line_breaks_survive_the_loss_of_the_style_sheet(page):
    page.set_content(render(make_table(["7", " +", " 5"])).html)
    style = "all => all.map(e => getComputedStyle(e).backgroundColor)"
    before = page.locator(".opsd-tokens bdi").evaluate_all(style)
    page.evaluate("document.querySelectorAll('style').forEach(e => e.remove())")
    assert page.locator(".opsd-tokens bdi").evaluate_all(style) == before
    assert len(set(before)) == 3
    assert page.locator(".opsd-tokens").evaluate("e => getComputedStyle(e).whiteSpace") == "pre-wrap"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_card_keeps_dark_text_on_white_in_every_theme(chromium, scheme):
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    page.set_content(f'<body style="background:#111;color:#eee">{render(make_table(["7"])).html}</body>')
    colours = page.locator(".opsd-view").evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    assert colours == ["rgb(17, 17, 17)", "rgb(255, 255, 255)"]
    context.close()


@pytest.mark.parametrize("width", [360, 600, 1200])
def test_nothing_is_wider_than_the_window(page, width, tmp_path):
    steps = make_table(EIGHT, **(STEPS | {"label_source": "s" * 200}))
    long = TokenTable.concatenate([make_table(["1"] * 300), make_table(["x" * 400, " y"]), steps])
    page.set_viewport_size({"width": width, "height": 900})
    page.set_content(render(long, column="student_logprob").html)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_content(contexts_view("y" * 500, "y" * 500 + "z" * 500, privileged="z" * 500).html)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_panels_stand_side_by_side_where_there_is_room_and_below_each_other_where_not(page):
    view = render(TokenTable.concatenate([make_table(["a"]), make_table(["b"])])).html
    for width, side_by_side in ((1200, True), (500, False)):
        page.set_viewport_size({"width": width, "height": 900})
        page.set_content(view)
        first, second = (panel.bounding_box() for panel in page.locator("figure").all())
        assert (second["x"] > first["x"]) is side_by_side


def test_the_idea_is_drawn_in_a_page_that_may_load_nothing(unscripted, tmp_path):
    unscripted.goto(draw_idea().save(tmp_path / "idea.html").as_uri())
    image = unscripted.get_by_role("img", name="One model reads two contexts")
    box = image.bounding_box()
    assert box["width"] > 700 and box["height"] == pytest.approx(box["width"] * 500 / 1080, rel=0.01)
