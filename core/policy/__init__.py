"""Who may do what. See DESIGN.md in `core/`, "Policy"."""

from holdfast.core.policy.gate import Policy

__all__ = ["Policy"]
