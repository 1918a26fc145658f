"""The wrapped root key opens for the request it answers, once, and for nothing else."""

import copy
import pickle

import msgspec
import pytest
from support.seal_rig import stream

from holdfast.cluster.seal.handover import KeyRequest, PendingKey, wrap
from holdfast.proto.errors import FailedPrecondition, InvalidArgument

ROOT_KEY = bytes(range(32))


def pending(*, cluster_id: str = "cluster", receiver: str = "node-2", seed: str = "a") -> PendingKey:
    return PendingKey(cluster_id=cluster_id, receiver=receiver, random_bytes=stream(seed))


def test_the_receiver_of_the_request_gets_the_key() -> None:
    asked = pending()
    wrapped = wrap(ROOT_KEY, asked.request, giver="node-1", receiver="node-2")
    assert ROOT_KEY not in wrapped
    assert asked.open(wrapped, giver="node-1") == ROOT_KEY


def test_a_request_is_answered_once() -> None:
    asked = pending()
    wrapped = wrap(ROOT_KEY, asked.request, giver="node-1", receiver="node-2")
    asked.open(wrapped, giver="node-1")
    with pytest.raises(FailedPrecondition):
        asked.open(wrapped, giver="node-1")


def test_a_failure_spends_the_request() -> None:
    asked = pending()
    with pytest.raises(FailedPrecondition):
        asked.open(b"", giver="node-1")
    with pytest.raises(FailedPrecondition):
        asked.open(wrap(ROOT_KEY, asked.request, giver="node-1", receiver="node-2"), giver="node-1")


@pytest.mark.parametrize("changed", ["giver", "receiver", "cluster", "nonce", "key", "byte", "cut", "padded"])
def test_what_was_wrapped_for_anything_else_does_not_open(changed: str) -> None:
    asked, request = pending(), pending().request
    if changed == "cluster":
        request = msgspec.structs.replace(request, cluster_id="another")
    if changed == "nonce":
        request = msgspec.structs.replace(request, nonce=bytes(16))
    if changed == "key":
        request = msgspec.structs.replace(request, public_key=pending(seed="b").request.public_key)
    wrapped = wrap(
        ROOT_KEY,
        request,
        giver="node-3" if changed == "giver" else "node-1",
        receiver="node-3" if changed == "receiver" else "node-2",
    )
    if changed == "byte":
        wrapped = bytes((wrapped[0] ^ 1,)) + wrapped[1:]
    if changed == "cut":
        wrapped = wrapped[:-1]
    if changed == "padded":
        wrapped += b"\0"
    with pytest.raises(FailedPrecondition):
        asked.open(wrapped, giver="node-1")


def test_ids_that_run_into_each_other_are_told_apart() -> None:
    asked = pending(receiver="bc")
    with pytest.raises(FailedPrecondition):
        asked.open(wrap(ROOT_KEY, asked.request, giver="a", receiver="bc"), giver="ab")


def test_a_public_key_that_makes_a_known_secret_is_refused() -> None:
    request = KeyRequest(cluster_id="cluster", nonce=bytes(16), public_key=bytes(32))
    with pytest.raises(InvalidArgument):
        wrap(ROOT_KEY, request, giver="node-1", receiver="node-2")


def test_the_private_key_is_not_shown_copied_or_stored() -> None:
    asked = pending()
    assert repr(asked) == "<PendingKey of node-2>"
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(asked)
