"""The family: published methods as recipes, each a function with its formula, its source and how well it is confirmed."""

from opsd_lab.methods import advantages, contexts, gaps, gates, spans, targets, token_weights
from opsd_lab.methods.method import GRADES, GROUPS, METHODS, Method, method
from opsd_lab.methods.recipe_files import recipe_from_toml, recipe_text, recipe_to_toml

__all__ = [
    "GRADES",
    "GROUPS",
    "METHODS",
    "Method",
    "advantages",
    "contexts",
    "gaps",
    "gates",
    "method",
    "recipe_from_toml",
    "recipe_text",
    "recipe_to_toml",
    "spans",
    "targets",
    "token_weights",
]
