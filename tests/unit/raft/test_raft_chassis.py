"""The chassis: the right pysyncobj, opened without a thread, socket, pipe or file, its unsafe doors shut."""

import os
import threading

import pysyncobj.syncobj
import pytest
from support.raft_rig import Alone

from holdfast.cluster.raft import chassis
from holdfast.cluster.raft.chassis import ChassisMismatch
from holdfast.cluster.raft.consensus import Role
from holdfast.proto.errors import Fatal


def test_another_pysyncobj_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    chassis.check_source()
    monkeypatch.setattr(chassis, "SOURCE_SHA256", "0" * 64)
    with pytest.raises(ChassisMismatch, match="require-hashes") as refused:
        Alone()
    assert isinstance(refused.value, Fatal)


def test_a_machine_opens_no_thread_and_no_descriptor() -> None:
    threads, descriptors = threading.active_count(), set(os.listdir("/proc/self/fd"))
    node = Alone()
    node.lead()
    assert threading.active_count() == threads
    assert set(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.parametrize(
    "name",
    ["_applyCommand", "_checkCommandsToApply", "setCodeVersion", "addNodeToCluster", "removeNodeFromCluster",
     "transferLeadership", "forceLogCompaction", "_SyncObj__loadDumpFile", "_SyncObj__tryLogCompaction",
     "_SyncObj__doApplyCommand", "_SyncObj__sendAppendEntries", "_SyncObj__applyLogEntries",
     "_SyncObj__deleteEntriesFrom", "_SyncObj__doChangeCluster", "_SyncObj__sendNextNodeIdx"],
)  # fmt: skip
def test_unsafe_parts_are_overridden_by_their_exact_names_and_refuse(name: str) -> None:
    assert hasattr(pysyncobj.syncobj.SyncObj, name), "the name exists in the base, so the override takes effect"
    with pytest.raises(AssertionError):
        getattr(Alone().machine, name)()


@pytest.mark.parametrize(
    "name",
    ["_onTick", "_SyncObj__onMessageReceived", "_SyncObj__onBecomeLeader", "_SyncObj__onNodeConnected",
     "_SyncObj__onNodeDisconnected", "_SyncObj__generateRaftTimeout"],
)  # fmt: skip
def test_overrides_have_the_names_that_the_base_looks_up(name: str) -> None:
    base, ours = getattr(pysyncobj.syncobj.SyncObj, name), getattr(type(Alone().machine), name)
    assert base is not ours


def test_pysyncobjs_own_view_agrees_with_ours() -> None:
    node = Alone()
    node.lead()
    status = node.machine.getStatus()
    assert status["raft_term"] == node.machine.term
    assert status["commit_idx"] == node.machine.commit
    assert status["state"] == 2
    assert status["partner_nodes_count"] == 2
    assert node.machine._isLeader()
    assert node.machine.role is Role.LEADER
