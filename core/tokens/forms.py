"""Members of requests that make tokens, read and checked."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from holdfast.core.plugin import fields
from holdfast.proto.errors import InvalidArgument

METADATA_KEYS_MAX = 64


def policy_names(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Names of policies, each once, in lower case and in order."""
    return tuple(sorted({text.strip().lower() for text in fields.texts(data, name, count_max=256)} - {""}))


def cidrs(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Networks (RFC 4632); an address stands for itself alone."""
    found = []
    for text in fields.texts(data, name, count_max=256):
        try:
            found.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            raise InvalidArgument(f"{name} must be networks such as 10.0.0.0/8", field=name) from None
    return tuple(found)


def metadata(data: Mapping[str, Any], name: str) -> dict[str, str]:
    """Strings by name."""
    given = fields.mapping(data, name) or {}
    if len(given) > METADATA_KEYS_MAX or not all(isinstance(value, str) for value in given.values()):
        raise InvalidArgument(f"{name} must be at most {METADATA_KEYS_MAX} strings by name", field=name)
    if sum(len(key) + len(value) for key, value in given.items()) > 16 * 1024:
        raise InvalidArgument(f"{name} is over 16 KiB long", field=name)
    return given
