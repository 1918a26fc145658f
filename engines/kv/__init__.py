"""Versioned secrets with the meanings of Vault's KV version 2."""

from holdfast.engines.kv.engine import KvEngine

__all__ = ["KvEngine"]
