"""The kinds of providers there are: a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.cluster.seal.providers.age import AGE
from holdfast.cluster.seal.providers.awskms import AWSKMS
from holdfast.cluster.seal.providers.contract import ProviderType
from holdfast.cluster.seal.providers.pkcs11 import PKCS11
from holdfast.cluster.seal.providers.transit import TRANSIT

TYPES: Mapping[str, ProviderType[Any]] = {kind.name: kind for kind in (TRANSIT, AWSKMS, PKCS11, AGE)}
"""By name."""
