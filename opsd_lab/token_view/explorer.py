"""The live token view: a widget in a notebook, or a page of its own, on the same data as the static view."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from opsd_lab.basics.files import write_whole
from opsd_lab.token_view.explorer_data import as_json, frame_of_view, rollout_of_view
from opsd_lab.token_view.meanings import meanings
from opsd_lab.token_view.page import StaticView
from opsd_lab.token_view.static import check_table, check_titles, render, render_views
from opsd_lab.token_view.visible import visible_text
from opsd_lab.tokens.table import TokenTable

LARGEST_PAGE = 60_000  # tokens over all panels; with 20 top tokens a side about 150 MB


@cache
def _part(kind: str) -> str:
    """Return the view's "js", "css" or "html"."""
    return Path(__file__).with_name(f"explorer.{kind}").read_text(encoding="utf-8")


@dataclass(frozen=True)
class LiveView:
    """A live view of one or several tables; in a notebook it shows itself, with the static view where no kernel runs.

    `widget` is the widget; its `pinned` is the position of the pinned token or None, its `rollout` the number of the one shown.
    `static` is the static view of the rollout that was shown first.
    """

    tables: Mapping[str, TokenTable] = field(repr=False)
    widget: Any = field(repr=False)
    static: StaticView = field(repr=False)

    @property
    def pinned(self) -> int | None:
        """The position of the pinned token in its rollout, or None."""
        return self.widget.pinned

    def _repr_mimebundle_(self, **options: object) -> tuple[dict, dict]:
        bundle = self.widget._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/html": self.static.html}, metadata

    def save(self, path: str | Path) -> Path:
        """Write a stand-alone page with every rollout, which works without a kernel or a network, and return its path.

        Raises:
            ValueError: when the tables are too large for a page.
            OSError: when the file cannot be written.
        """
        tokens = sum(len(table) for table in self.tables.values())
        if tokens > LARGEST_PAGE:
            raise ValueError(f"save: {tokens:,} tokens are too many for one page ({LARGEST_PAGE:,}); select fewer rollouts first")
        numbers = sorted({int(i) for table in self.tables.values() for i in table.frame["rollout"].unique()})
        data = {
            "about": self.widget.about,
            "column": self.widget.column,
            "rollout": self.widget.rollout,
            "rollouts": {str(i): rollout_of_view(self.tables, i) for i in numbers},
        }
        page = _part("html")
        for mark, text in (("/*style*/", _part("css")), ("/*script*/", _part("js")), ("/*data*/", as_json(data))):
            page = page.replace(mark, text, 1)
        return write_whole(path, page)


def explore(
    tables: TokenTable | Mapping[str, TokenTable],
    *,
    rollout: int | None = None,
    column: str = "gap",
    titles: Mapping[int, str] | None = None,
    scale: float | None = None,
) -> LiveView:
    """Open the live token view of a table, or of several named ones: views of the same completions, or before and after training.

    `rollout` is the one shown first (left out: the first). `titles` name rollouts. Colours follow `column` on one zero-centred
    scale for all panels, as in `render`; `scale` sets where it ends. Panels whose rollouts are the same tokens are linked token
    by token.

    Raises:
        TypeError: for something else in place of a table; the message says what to pass.
        ValueError: for no tables, an empty one, a column that cannot be shown, a title that is no text, or a scale that is not
            positive.
        KeyError: when no table has the rollout.
        ModuleNotFoundError: when the extra `notebooks` is not installed.
    """
    if not isinstance(tables, Mapping):
        check_table(tables, "explore")
        tables = {"": tables}
    check_titles(dict(enumerate(tables)))
    named = {name and visible_text(name): table for name, table in tables.items()}
    for name, table in named.items():
        check_table(table, f"explore: {name!r}")
    check_titles(titles or {})
    if not named or not all(len(table) for table in named.values()):
        raise ValueError("explore: there is no table, or one without rows, so there is nothing to show")
    if column not in (columns := meanings(named.values())):
        raise ValueError(f"explore: cannot colour by {column!r}; choose one of {sorted(columns)}")
    if scale is not None and not 0 < scale < float("inf"):
        raise ValueError(f"explore: scale is {scale}, not a positive number")
    known = sorted({int(i) for table in named.values() for i in table.frame["rollout"].unique()})
    first = known[0] if rollout is None else rollout
    if first not in known:
        raise KeyError(f"explore: no table has a rollout {first}; there are {known[:20]}")
    about = frame_of_view(named, titles or {}, column, scale)
    widget = _widget(named, about, first, column)
    return LiveView(named, widget, _static(named, first, column, scale))


def _static(tables: Mapping[str, TokenTable], rollout: int, column: str, scale: float | None) -> StaticView:
    having = {name: table for name, table in tables.items() if (table.frame["rollout"] == rollout).any()}
    if len(having) == 1:
        ((_, table),) = having.items()
        return render(table.rollout(rollout), column=column, scale=scale)
    try:
        return render_views(having, rollout=rollout, column=column, scale=scale)
    except ValueError:  # other completions of the same problem: panels of their own
        joined = TokenTable.concatenate([TokenTable(table.rollout(rollout).frame) for table in having.values()])
        return render(joined, column=column, scale=scale, titles=list(having))


def _widget(tables: Mapping[str, TokenTable], about: str, rollout: int, column: str) -> Any:
    try:
        import anywidget
        import traitlets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: the live view needs the extra `notebooks`: pip install 'opsd-lab[notebooks]'; render() does not"
        ) from None

    class Explorer(anywidget.AnyWidget):
        _esm = _part("js")
        _css = _part("css")
        page = traitlets.Unicode(_part("html")).tag(sync=True)
        about = traitlets.Unicode().tag(sync=True)
        data = traitlets.Unicode().tag(sync=True)
        column = traitlets.Unicode().tag(sync=True)
        rollout = traitlets.Int().tag(sync=True)
        pinned = traitlets.Int(None, allow_none=True).tag(sync=True)

        @traitlets.observe("rollout")
        def _load_rollout(self, change: Any) -> None:
            self.data = rollout_of_view(tables, change["new"])

    return Explorer(about=about, data=rollout_of_view(tables, rollout), column=column, rollout=rollout)
