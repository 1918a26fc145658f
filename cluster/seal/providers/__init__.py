"""Unseal providers: further wraps of the root key, each under a key that something outside the cluster holds."""
