"""The addresses of providers."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit


def check_https(text: str) -> None:
    """Raises ValueError unless `text` is https://HOST[:PORT] and nothing more."""
    _split(text, ("https",))


def check_endpoint(text: str) -> None:
    """As `check_https`; plain http is allowed to a loopback address, where nothing listens in between."""
    parts = _split(text, ("https", "http"))
    if parts.scheme == "http" and not _loopback(parts.hostname or ""):
        raise ValueError("must be https:// (plain http:// only to a loopback address)")


def _split(text: str, schemes: tuple[str, ...]) -> SplitResult:
    wanted = f"must be {schemes[0]}://HOST[:PORT]"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    extras = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    if parts.scheme not in schemes or not parts.hostname or any(extras) or port == 0:
        raise ValueError(wanted)
    return parts


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
