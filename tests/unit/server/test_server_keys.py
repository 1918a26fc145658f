"""KeysService over a real core and seal: who may what, on which node, and what is audited of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.front_end import FrontEndNode, Refused, one_node, two_nodes

from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.seal.generate_root import make_otp
from holdfast.core.request import Request
from holdfast.core.tokens import TOKEN_CHARS
from holdfast.proto.errors import AuditFailed, HoldfastError, Overloaded
from holdfast.proto.v1 import keys_pb2 as pb
from holdfast.proto.v1 import kv_pb2, sys_pb2
from holdfast.server import key_operations
from holdfast.server.leader_operation import Credentials

Scenario = Callable[[FrontEndNode], Awaitable[None]]


def on_a_node(scenario: Scenario) -> None:
    async def run() -> None:
        node = await one_node()
        try:
            await scenario(node)
        finally:
            await node.seal.close()

    asyncio.run(run())


async def rekeyed(node: FrontEndNode, *, via: FrontEndNode | None = None) -> list[str]:
    """A whole rekey to 3 shares with a threshold of 2, through `via`. Returns the new shares."""
    via = via or node
    began = await via.call(via.keys.RekeyInit, pb.RekeyInitRequest(secret_shares=3, secret_threshold=2))
    request = pb.RekeyUpdateRequest(nonce=began.state.nonce, share=node.shares[0])
    made = (await via.call(via.keys.RekeyUpdate, request, token="")).new_shares
    assert made.in_force == pb.NewShares.IN_FORCE_PENDING
    for share in made.shares[:2]:
        request = pb.RekeyVerifyRequest(nonce=made.verification_nonce, share=share)
        done = await via.call(via.keys.RekeyVerify, request)
    assert done.complete
    assert done.state.set_id == made.set_id
    return list(made.shares)


def test_a_rekey_through_any_node_ends_with_new_shares_that_unseal_every_node() -> None:
    async def scenario() -> None:
        leader, follower = await two_nodes()
        shares = await rekeyed(leader, via=follower)
        assert [name for name, _ in leader.events] == ["rekey_shares_made", "rekey_complete"]
        for node in (leader, follower):
            await node.call(node.sys.Seal, sys_pb2.SealRequest())
            with pytest.raises(Refused) as refused:
                await node.call(node.sys.Unseal, sys_pb2.UnsealRequest(share=leader.shares[0]))
            assert refused.value.details["kind"] == "other_set"
            for share in shares[1:]:
                await node.call(node.sys.Unseal, sys_pb2.UnsealRequest(share=share))
            assert not node.seal.sealed
            await node.seal.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "method",
    ["RekeyInit", "RekeyCancel", "RekeyRecover", "Rotate", "KeyStatus", "ConfigureRotation"],
)
def test_what_no_share_protects_needs_a_token(method: str) -> None:
    async def scenario(node: FrontEndNode) -> None:
        message = getattr(pb, f"{method}Request")()
        if method == "RekeyRecover":
            message.nonce = "00"
        token, node.token = node.token, ""
        with pytest.raises(Refused) as refused:
            await node.call(getattr(node.keys, method), message)
        assert refused.value.reason == "UNAUTHENTICATED"
        node.token = token
        state = await node.call(node.keys.RekeyStatus, pb.RekeyStatusRequest())
        assert not state.state.nonce

    on_a_node(scenario)


def test_a_root_token_is_made_without_a_token_and_opens_everything() -> None:
    async def scenario(node: FrontEndNode) -> None:
        node.token = ""
        otp = make_otp(lambda size: bytes(range(size)), TOKEN_CHARS)
        began = await node.call(node.keys.GenerateRootInit, pb.GenerateRootInitRequest(otp=otp))
        assert (began.otp, began.state.otp_length, began.state.required) == ("", TOKEN_CHARS, 1)
        request = pb.GenerateRootUpdateRequest(nonce=began.state.nonce, share=node.shares[0])
        done = await node.call(node.keys.GenerateRootUpdate, request)
        assert done.complete
        from holdfast.client.cli.operator_keys import decode_token

        node.token = decode_token(done.encoded_token, otp)
        await node.call(node.kv.Put, kv_pb2.PutRequest(mount="secret", path="a", data=b"{}"))
        with pytest.raises(Refused, match="no root token generation"):
            await node.call(node.keys.GenerateRootUpdate, request)

    on_a_node(scenario)


def test_a_root_token_can_be_cancelled_and_begun_again() -> None:
    async def scenario(node: FrontEndNode) -> None:
        began = await node.call(node.keys.GenerateRootInit, pb.GenerateRootInitRequest())
        assert len(began.otp) == TOKEN_CHARS
        with pytest.raises(Refused) as refused:
            await node.call(node.keys.GenerateRootInit, pb.GenerateRootInitRequest())
        assert refused.value.details["nonce"] == began.state.nonce
        assert not (await node.call(node.keys.GenerateRootCancel, pb.GenerateRootCancelRequest())).state.nonce
        again = await node.call(node.keys.GenerateRootInit, pb.GenerateRootInitRequest())
        assert again.state.nonce != began.state.nonce
        assert again.otp != began.otp

    on_a_node(scenario)


def test_a_rotation_and_its_policy_show_in_the_status() -> None:
    async def scenario(node: FrontEndNode) -> None:
        rotated = (await node.call(node.keys.Rotate, pb.RotateRequest())).state
        assert (rotated.term, rotated.terms, rotated.oldest_term) == (2, 2, 1)
        assert rotated.install_time.seconds > 1_700_000_000
        change = pb.ConfigureRotationRequest(interval_seconds=7200, reencrypt=False)
        await node.call(node.keys.ConfigureRotation, change)
        change = pb.ConfigureRotationRequest(keep_terms=3)
        await node.call(node.keys.ConfigureRotation, change)
        policy = (await node.call(node.keys.KeyStatus, pb.KeyStatusRequest())).state.policy
        assert (policy.interval_seconds, policy.reencrypt, policy.keep_terms, policy.rate) == (7200, False, 3, 500)
        with pytest.raises(Refused) as refused:
            await node.call(node.keys.ConfigureRotation, pb.ConfigureRotationRequest(interval_seconds=1))
        assert refused.value.field == "interval"

    on_a_node(scenario)


def test_shares_given_to_one_leader_are_not_with_the_next_one() -> None:
    async def scenario(node: FrontEndNode) -> None:
        shares = await rekeyed(node)
        began = await node.call(node.keys.RekeyInit, pb.RekeyInitRequest(secret_shares=1))
        request = pb.RekeyUpdateRequest(nonce=began.state.nonce, share=shares[0])
        assert (await node.call(node.keys.RekeyUpdate, request)).state.progress == 1
        node.consensus.set_role(Role.FOLLOWER, leader_id="node-2")
        node.consensus.set_role(Role.LEADER)
        state = (await node.call(node.keys.RekeyStatus, pb.RekeyStatusRequest())).state
        assert (state.progress, state.nonce) == (0, began.state.nonce)

    on_a_node(scenario)


@pytest.mark.parametrize(
    ("nonce", "share", "field"),
    [("", "hfs1.x", "nonce"), ("a b", "hfs1.x", "nonce"), ("00", "", "share"), ("00", "é", "share")],
)
def test_what_cannot_be_a_share_or_a_nonce_is_refused(nonce: str, share: str, field: str) -> None:
    async def scenario(node: FrontEndNode) -> None:
        with pytest.raises(Refused) as refused:
            await node.call(node.keys.RekeyUpdate, pb.RekeyUpdateRequest(nonce=nonce, share=share))
        assert refused.value.field == field

    on_a_node(scenario)


def test_strangers_are_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_operations, "STRANGERS_PER_MINUTE", 3)

    async def scenario(node: FrontEndNode) -> None:
        for _ in range(3):
            await node.call(node.keys.RekeyStatus, pb.RekeyStatusRequest())
        with pytest.raises(Refused) as refused:
            await node.call(node.keys.GenerateRootCancel, pb.GenerateRootCancelRequest())
        assert refused.value.reason == "RESOURCE_EXHAUSTED"
        assert refused.value.retry_ms > 0
        await node.call(node.keys.KeyStatus, pb.KeyStatusRequest())  # who has a token is not

    on_a_node(scenario)


def test_one_address_does_not_keep_the_others_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_operations, "STRANGERS_PER_ADDRESS", 2)

    async def scenario(node: FrontEndNode) -> None:
        def from_address(address: str) -> key_operations.PlainOrder:
            credentials = Credentials(token="", call_id="call", remote_address=address, timeout_s=5.0)
            return key_operations.PlainOrder(credentials)

        for port in (1, 2):
            await node.keys._operations.root_status(from_address(f"10.0.0.1:{port}"), timeout_s=5.0)
        with pytest.raises(Overloaded):
            await node.keys._operations.root_status(from_address("10.0.0.1:3"), timeout_s=5.0)
        await node.keys._operations.root_status(from_address("10.0.0.2:3"), timeout_s=5.0)

    on_a_node(scenario)


@pytest.mark.parametrize("verify", [False, True])
def test_new_shares_in_force_get_out_even_if_their_outcome_is_not_audited(verify: bool) -> None:
    class Unrecorded:
        async def finish(self, _error: HoldfastError | None = None) -> None:
            raise AuditFailed("no device took the entry")

    async def unrecorded(_request: Request) -> Any:
        return Unrecorded()

    async def scenario(node: FrontEndNode) -> None:
        shares = await rekeyed(node)
        init = pb.RekeyInitRequest(secret_shares=1, skip_verification=not verify)
        nonce = (await node.call(node.keys.RekeyInit, init)).state.nonce
        await node.call(node.keys.RekeyUpdate, pb.RekeyUpdateRequest(nonce=nonce, share=shares[0]))
        node.keys._operations._witness = unrecorded
        last = pb.RekeyUpdateRequest(nonce=nonce, share=shares[1])
        if verify:
            with pytest.raises(Refused) as refused:
                await node.call(node.keys.RekeyUpdate, last)
            assert refused.value.reason == "OUTCOME_UNKNOWN"
        else:
            assert len((await node.call(node.keys.RekeyUpdate, last)).new_shares.shares) == 1

    on_a_node(scenario)


def test_a_provider_that_is_not_there_recovers_nothing() -> None:
    async def scenario(node: FrontEndNode) -> None:
        began = await node.call(node.keys.RekeyInit, pb.RekeyInitRequest(secret_shares=1))
        with pytest.raises(Refused) as refused:
            await node.call(node.keys.RekeyRecover, pb.RekeyRecoverRequest(nonce=began.state.nonce, provider="nowhere"))
        assert refused.value.reason == "NOT_FOUND"

    on_a_node(scenario)


def test_no_order_or_result_prints_what_it_carries() -> None:
    credentials: Any = None
    shown = [
        key_operations.ShareOrder(credentials, "00", "secret"),
        key_operations.RootInitOrder(credentials, "secret", "key"),
    ]
    assert not [thing for thing in shown if "secret" in repr(thing)]
