"""One row per scored token: the table, its files, and the texts and classes of tokens."""

from opsd_lab.tokens.files import load_table, save_table
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.top import TopTokens

__all__ = ["TokenTable", "TopTokens", "load_table", "save_table"]
