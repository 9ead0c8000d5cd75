"""The results page, docs/results.md: the text of page.md with every number filled in from the committed results."""

from pathlib import Path

from opsd_lab.experiments.results_page.capability import champ
from opsd_lab.experiments.results_page.clips import clip, trained_with_clip
from opsd_lab.experiments.results_page.family import methods, methods_on_smollm2, rates, teachers
from opsd_lab.experiments.results_page.measured import graders, samplers, speed
from opsd_lab.experiments.results_page.sandbox import ablations, baselines, contradicting
from opsd_lab.experiments.results_page.smollm2 import tuned, walkthrough
from opsd_lab.experiments.results_page.supervision import supervision
from opsd_lab.experiments.results_page.text import LEVEL

__all__ = ["TEMPLATE", "results_page"]

TEMPLATE = Path(__file__).with_name("page.md")


def results_page(notebooks: Path) -> str:
    """Return the page, made from the committed tables and from the outputs in a folder of notebooks.

    Raises:
        FileNotFoundError: when a table or a notebook is not there.
        ValueError: when a notebook lacks an output, or the numbers no longer say what the page says in words.
    """
    fields = walkthrough() | tuned() | supervision(notebooks / "02_token_supervision.ipynb") | champ()
    fields |= baselines() | contradicting(notebooks / "03_baselines_and_ablations.ipynb") | ablations() | samplers()
    fields |= clip() | trained_with_clip() | teachers() | rates() | methods() | methods_on_smollm2() | graders() | speed()
    return TEMPLATE.read_text(encoding="utf-8").format(level=LEVEL, **fields)
