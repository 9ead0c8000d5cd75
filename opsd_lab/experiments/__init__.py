"""What the notebooks and the command line run; the library imports none of it."""

from pathlib import Path

RESULTS = Path(__file__).with_name("results")
"""The tables that the notebooks show; `docs/results.md` says how each was made."""
