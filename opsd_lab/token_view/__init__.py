"""Rollouts and contexts as HTML that runs no script, and live on the same data."""

from opsd_lab.token_view.contexts_view import contexts_view
from opsd_lab.token_view.explorer import LiveView, explore
from opsd_lab.token_view.page import StaticView
from opsd_lab.token_view.static import TokenView, render, render_views

__all__ = ["LiveView", "StaticView", "TokenView", "contexts_view", "explore", "render", "render_views"]
