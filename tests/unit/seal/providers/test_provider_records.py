"""The stored form of providers and of their wraps: what goes in comes out, and nothing else is taken."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.providers import KEY, binding_of
from support.seal_rig import stream

from holdfast.cluster.seal.providers import envelope, records
from holdfast.cluster.seal.providers.contract import Binding, Health, ProviderError
from holdfast.cluster.seal.providers.records import ProviderList, ProviderRecord
from holdfast.cluster.seal.providers.urls import check_endpoint
from holdfast.proto.errors import Corruption

WRAPPING_KEY = bytes(range(32, 64))
BINDING = binding_of("transit")
WRAP = envelope.seal(KEY, WRAPPING_KEY, b"sealed by the provider", BINDING, stream("wrap"))


def record(name: str = "kms", priority: int = 1) -> ProviderRecord:
    return ProviderRecord(
        name=name, type="awskms", priority=priority, parameters={"key_id": "k"}, wrap=WRAP,
        enrolled_ms=1, enrolled_by="node-1",
    )  # fmt: skip


def test_a_wrap_opens_with_its_wrapping_key_and_holds_neither_key_in_the_clear() -> None:
    assert envelope.unseal(WRAP, WRAPPING_KEY, BINDING) == KEY
    assert envelope.sealed_key(WRAP) == b"sealed by the provider"
    assert KEY not in WRAP
    assert WRAPPING_KEY not in WRAP


@pytest.mark.parametrize(
    "moved",
    [
        Binding(cluster_id="c-2", name="one", type="transit"),
        Binding(cluster_id="c-1", name="two", type="transit"),
        Binding(cluster_id="c-1", name="one", type="awskms"),
        Binding(cluster_id="c-1o", name="ne", type="transit"),
    ],
)
def test_a_wrap_that_was_moved_to_another_cluster_provider_or_type_does_not_open(moved: Binding) -> None:
    with pytest.raises(ProviderError) as caught:
        envelope.unseal(WRAP, WRAPPING_KEY, moved)
    assert caught.value.health is Health.WRONG_KEY


def test_no_changed_bit_of_a_wrap_goes_unnoticed() -> None:
    for position in range(len(WRAP)):
        for bit in (0, 7):
            changed = bytearray(WRAP)
            changed[position] ^= 1 << bit
            with pytest.raises(ProviderError):
                _open(bytes(changed))


@given(st.binary(max_size=400))
def test_what_is_no_wrap_is_refused(noise: bytes) -> None:
    with pytest.raises(ProviderError):
        _open(noise)


@given(st.binary(max_size=64).filter(lambda key: key != WRAPPING_KEY))
def test_another_wrapping_key_of_any_length_opens_nothing(key: bytes) -> None:
    with pytest.raises(ProviderError):
        envelope.unseal(WRAP, key, BINDING)


def _open(wrap: bytes) -> bytes:
    envelope.sealed_key(wrap)
    return envelope.unseal(wrap, WRAPPING_KEY, BINDING)


def test_providers_are_kept_in_the_order_in_which_they_are_tried() -> None:
    providers = ProviderList().with_added(record("b", 2)).with_added(record("c", 1)).with_added(record("a", 2))
    assert [each.name for each in providers.providers] == ["c", "a", "b"]
    assert [each.name for each in providers.without("a").providers] == ["c", "b"]
    assert records.decode(records.encode(providers)) == providers
    assert providers.find("a") == record("a", 2)
    assert providers.find("d") is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\x02\x80",
        b"\x01",
        b"\x01\x80extra",
        b"\x01" + msgspec.msgpack.encode({"providers": [], "more": 1}),
        b"\x01" + msgspec.msgpack.encode(ProviderList((record(), record()))),
        b"\x01" + msgspec.msgpack.encode(ProviderList((record("UPPER"),))),
        b"\x01" + msgspec.msgpack.encode(ProviderList((record(priority=0),))),
        b"\x01" + msgspec.msgpack.encode(ProviderList(tuple(record(f"p{n}") for n in range(17)))),
        b"\x01\x81\xa9providers\x91\xc1",
    ],
)
def test_a_damaged_record_is_corruption(broken: bytes) -> None:
    with pytest.raises(Corruption):
        records.decode(broken)


@given(st.binary(max_size=200))
def test_noise_is_corruption_or_an_empty_list(noise: bytes) -> None:
    with contextlib.suppress(Corruption):
        assert records.decode(b"\x01" + noise).providers == ()


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
RECORDS = st.builds(
    ProviderRecord,
    name=NAMES,
    type=st.text(max_size=10),
    priority=st.integers(1, records.PRIORITY_MAX),
    parameters=st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=3),
    wrap=st.binary(max_size=100),
    enrolled_ms=st.integers(0, 2**53),
    enrolled_by=st.text(max_size=10),
)


@given(st.lists(RECORDS, max_size=records.PROVIDERS_MAX, unique_by=lambda each: each.name))
def test_every_list_comes_back_as_it_was(given_records: list[ProviderRecord]) -> None:
    providers = ProviderList()
    for each in given_records:
        providers = providers.with_added(each)
    assert records.decode(records.encode(providers)) == providers
    order = [(each.priority, each.name) for each in providers.providers]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://vault.example.org", True),
        ("https://[::1]:8200/", True),
        ("http://127.0.0.1:5000", True),
        ("http://[::1]:5000", True),
        ("http://localhost", False),
        ("http://10.0.0.1", False),
        ("https://", False),
        ("https://h:0", False),
        ("https://h:99999", False),
        ("https://h?x=1", False),
        ("ftp://h", False),
        ("h:8200", False),
    ],
)
def test_an_endpoint_is_https_or_on_this_machine(text: str, good: bool) -> None:
    try:
        check_endpoint(text)
    except ValueError:
        assert not good
    else:
        assert good
