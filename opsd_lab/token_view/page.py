"""StaticView: a piece of HTML that shows itself in a notebook and saves itself as a page of its own."""

import html
from dataclasses import dataclass, field
from pathlib import Path

from opsd_lab.basics.files import write_whole
from opsd_lab.token_view.colours import TEXT
from opsd_lab.token_view.visible import visible_text

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
CARD = (
    f"background:#ffffff;color:{TEXT};color-scheme:light;border:1px solid #c9ced6;border-radius:8px;padding:12px 14px;"
    "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:14px;line-height:1.45;"
    "text-align:left;box-sizing:border-box"
)
PANEL = (
    "flex:1 1 300px;min-width:0;margin:0;padding:10px 12px;border:1px solid #dfe3e8;border-radius:6px;"
    f"background:#ffffff;color:{TEXT}"
)
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
NOTE = "display:block;font-size:13px;color:#374151"


@dataclass(frozen=True)
class StaticView:
    """A self-contained, script-free HTML fragment and the title of the page that `save` makes of it."""

    html: str = field(repr=False)
    title: str

    def _repr_html_(self) -> str:
        return self.html

    def save(self, path: str | Path) -> Path:
        """Write a stand-alone UTF-8 page, which may load nothing and run nothing, and return its path.

        Raises:
            OSError: when the file cannot be written.
        """
        page = (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(visible_text(self.title))}</title>\n</head>\n"
            f'<body style="margin:1rem;background:#fff">\n<main>\n{self.html}\n</main>\n</body>\n</html>\n'
        )
        return write_whole(path, page)
