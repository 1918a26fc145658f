"""Holdfast: a secret store that runs as a cluster."""

__version__ = "0.1.0"
