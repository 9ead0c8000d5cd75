"""Rollouts and contexts as HTML that runs no script."""

from opsd_lab.token_view.contexts_view import contexts_view
from opsd_lab.token_view.page import StaticView
from opsd_lab.token_view.static import TokenView, render, render_views

__all__ = ["StaticView", "TokenView", "contexts_view", "render", "render_views"]
