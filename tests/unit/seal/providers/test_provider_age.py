"""The age provider with real identity files."""

from pathlib import Path

import pyrage
import pytest
from support.providers import KEY, binding_of, failure_of

from holdfast.cluster.seal.providers.age import AGE
from holdfast.cluster.seal.providers.contract import Binding, Health, Provider, ProviderError
from holdfast.cluster.seal.providers.credentials import AgeCredentials
from holdfast.proto.errors import InvalidArgument

BINDING = binding_of("age")


def identity(path: Path, *, mode: int = 0o600) -> str:
    made = pyrage.x25519.Identity.generate()
    path.write_text(f"# created: today\n# public key: {made.to_public()}\n{made}\n")
    path.chmod(mode)
    return str(made.to_public())


def provider(path: Path, **parameters: str) -> Provider:
    return AGE.open(AGE.checked(parameters), AgeCredentials(identity_file=str(path)), "")


def failed(provider: Provider, blob: bytes | None = None, binding: Binding = BINDING) -> ProviderError:
    return failure_of(provider, binding, blob, secret="AGE-SECRET-KEY-1Q")


def test_what_was_wrapped_comes_back_to_the_same_identity_only(tmp_path: Path) -> None:
    recipient = identity(tmp_path / "a")
    identity(tmp_path / "b")
    one = provider(tmp_path / "a")
    blob = one.wrap(KEY, BINDING)
    assert one.unwrap(blob, BINDING) == KEY
    assert provider(tmp_path / "b", recipient=recipient).wrap(KEY, BINDING)
    other = failed(provider(tmp_path / "b"), blob)
    assert other.health is Health.WRONG_KEY
    assert failed(one, blob[:-1] + bytes([blob[-1] ^ 1])).health is Health.WRONG_KEY
    assert AGE.development


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert failed(provider(path)).health is Health.MISCONFIGURED
    identity(path, mode=0o644)
    assert "chmod" in failed(provider(path)).message
    path.chmod(0o600)
    for text in ("", "# nothing\n", "AGE-SECRET-KEY-1QQQ\n", "\n"):
        path.write_text(text)
        assert failed(provider(path)).health is Health.MISCONFIGURED
    path.write_bytes(b"\xff\xff")
    assert failed(provider(path)).health is Health.MISCONFIGURED


def test_a_recipient_must_be_one() -> None:
    with pytest.raises(InvalidArgument, match="recipient"):
        AGE.checked({"recipient": "ssh-ed25519 AAAA"})
