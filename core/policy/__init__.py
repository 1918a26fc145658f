"""Who may do what. See DESIGN.md in `core/`, "Policy"."""

from holdfast.core.policy.gate import Policy, RootOnly

__all__ = ["Policy", "RootOnly"]
