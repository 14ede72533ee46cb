"""Errors that people can cause, and that every command answers with one sentence."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """Input or a machine is not as it must be; the message is one sentence for the user."""
