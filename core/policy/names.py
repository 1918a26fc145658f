"""Names of policies that every part of the core knows."""

from __future__ import annotations

DEFAULT_POLICY = "default"
"""The policy that every token has unless it is made without. It can be changed and not deleted."""
