"""Audit: what was asked of the node and what came of it, recorded before it takes effect and before it is answered."""

from holdfast.core.audit.broker import AuditBroker, AuditDevice, AuditSource
from holdfast.core.audit.entries import AuditEntry
from holdfast.core.audit.hashing import AUDIT_PREFIX, Hasher, create_key, load_hasher
from holdfast.core.audit.trail import AuditTrail

__all__ = [
    "AUDIT_PREFIX",
    "AuditBroker",
    "AuditDevice",
    "AuditEntry",
    "AuditSource",
    "AuditTrail",
    "Hasher",
    "create_key",
    "load_hasher",
]
