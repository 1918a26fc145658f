"""Recovering a cluster from a lost quorum, as far as files go: stopped nodes' data folders and the reports about them.

What is compared and decided is in `cluster/raft/recovery.py`; this holds the folders, so that no node runs meanwhile,
and looks at every byte of them first.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast.cluster.raft import recovery
from holdfast.cluster.raft.consensus import Member
from holdfast.cluster.raft.installing import reconcile
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.lineage import ID_BYTES
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.recovery import Plan, Survivor
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import AlreadyExists, FailedPrecondition, Fatal, InvalidArgument, StorageFailed
from holdfast.proto.snapshot_file import SUFFIX, SnapshotDamaged, SnapshotReader
from holdfast.server import identity
from holdfast.server.config import parse_address
from holdfast.server.process import DataFolder
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.rocksdb import RocksStore
from holdfast.storage.rockshome import RocksHome

REPORT_FORMAT = "holdfast recovery report, format 1"
REPORT_BYTES_MAX = 64 * 1024 * 1024
RESTORE_FOLDER = "restore"
"""Where in a data folder the snapshot files of restores are."""

PROBE_TIMEOUT_S = 2.0
"""How long a member that is to be given up has to accept a connection."""


class _Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    sha256: str
    survivor: Survivor


@dataclass
class Stopped:
    """A stopped node's folder, held and open."""

    data_dir: Path
    journal: Journal
    survivor: Survivor


@contextmanager
def opened(data_dir: Path) -> Iterator[Stopped]:
    """Hold a stopped node's folder and read all of it. Like the node itself at start, this finishes or undoes what a
    crash cut short; it changes nothing else.

    Raises FailedPrecondition when this is not the folder of a node that took part in a cluster, ConfigError when a node
    runs on it, and Corruption when a part of it is damaged."""
    if not (data_dir / "journal").is_dir() or not (data_dir / identity.FILE).is_file():
        raise FailedPrecondition(f"{data_dir} is not the data folder of a node (it lacks journal or {identity.FILE})")
    owner_uid = data_dir.stat().st_uid
    if owner_uid != os.geteuid():
        raise FailedPrecondition(
            f"{data_dir} belongs to another user (id {owner_uid}), whose node could not use what this would write "
            f"there. Run this as that user: sudo -u '#{owner_uid}' ..."
        )
    with ExitStack() as held:
        held.enter_context(DataFolder(data_dir))
        owner = identity.read(data_dir)
        assert owner is not None, "it was there a moment ago"
        if owner.left_behind:
            raise FailedPrecondition(f"{data_dir}: {owner.node_id} was given up in an earlier recovery. Leave it out")
        try:
            journal_store = RocksStore.open(data_dir / "journal")
            held.callback(journal_store.close)
            home = RocksHome.open(data_dir / "state")
            held.callback(home.close)
            journal = Journal(journal_store, initial=None)
            machine = StateMachine(home.store)
            reconcile(journal, machine)
            for _ in home.store.scan(b""):
                pass  # reading is what checks it
        except Fatal as error:
            raise type(error)(f"{data_dir} ({owner.node_id}): {error.message}. Recover without this node") from error
        yield Stopped(
            data_dir,
            journal,
            recovery.survey(
                journal, machine, node_id=owner.node_id, cluster_name=owner.cluster_name,
                files=snapshot_files(data_dir / RESTORE_FOLDER),
            ),
        )  # fmt: skip


def snapshot_files(folder: Path) -> list[str]:
    """The SHA-256 of the snapshot files of restores that are here under their names, whole and undamaged."""
    found: list[str] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            with path.open("rb") as file:
                reader = SnapshotReader(file)
                reader.verify()
        except (OSError, SnapshotDamaged):
            continue  # as good as none
        if reader.digest.hex() == path.name.removesuffix(SUFFIX):
            found.append(reader.digest.hex())
    return found


def encode_report(survivor: Survivor) -> bytes:
    """A report as it is written to a file: JSON that shows when it was damaged or edited."""
    body = msgspec.json.encode(survivor)
    report = _Report(format=REPORT_FORMAT, sha256=hashlib.sha256(body).hexdigest(), survivor=survivor)
    return msgspec.json.encode(report) + b"\n"


def write_report(path: Path, survivor: Survivor) -> None:
    """Raises AlreadyExists (a report is never overwritten) or StorageFailed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(encode_report(survivor))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise AlreadyExists(f"{path} exists and is not overwritten; choose another name") from None
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error.strerror or error}") from error


def read_report(path: Path) -> Survivor:
    """Raises InvalidArgument for anything but a report as it was written."""
    try:
        if path.stat().st_size > REPORT_BYTES_MAX:
            raise InvalidArgument(f"{path} is no recovery report: it is too large")
        report = msgspec.json.decode(path.read_bytes(), type=_Report)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}") from None
    except MALFORMED:
        raise InvalidArgument(f"{path} is no recovery report, or was damaged on the way; make it again") from None
    body = msgspec.json.encode(report.survivor)
    if report.format != REPORT_FORMAT or hashlib.sha256(body).hexdigest() != report.sha256:
        raise InvalidArgument(f"{path} is damaged, or of another version; make it again")
    return report.survivor


def inspect(data_dir: Path) -> Survivor:
    """What a stopped node's folder says. Raises what `opened` raises."""
    with opened(data_dir) as stopped:
        return stopped.survivor


def gather(data_dirs: Sequence[Path], reports: Sequence[Path]) -> list[Survivor]:
    """All survivors, from folders and reports."""
    return [inspect(data_dir) for data_dir in data_dirs] + [read_report(path) for path in reports]


Probe = Callable[[str], bool]
"""Whether something accepts connections at host:port."""


def accepts(address: str) -> bool:
    """Whether something accepts connections at host:port."""
    try:
        with socket.create_connection(parse_address(address), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def check_silent(plan: Plan, probe: Probe = accepts) -> None:
    """Raises FailedPrecondition when another member answers: it is not lost, or not stopped, and may serve."""
    others = [member for member in plan.best.members if member.node_id != plan.best.node_id]
    alive = [member for member in others if probe(member.cluster_address)]
    if alive:
        shown = ", ".join(f"{member.node_id} ({member.cluster_address})" for member in alive)
        raise FailedPrecondition(
            f"something answers at the address of {shown}. If it is the node, stop it, and give its data folder or "
            "report too; if its machine only half lives, switch it off first"
        )


def check_complete(plan: Plan, data_dir: Path) -> None:
    """Raises FailedPrecondition when the best survivor would wait for ever for the file of a restore."""
    for sha256, holders in plan.lacking:
        place = data_dir / RESTORE_FOLDER / (sha256 + SUFFIX)
        source = (
            f"{' or '.join(holders)} has it: copy it from {RESTORE_FOLDER}/ of that data folder"
            if holders
            else "No survivor has it: copy it from where it was restored from (under another name, the "
            f"SHA-256 tells), or from {RESTORE_FOLDER}/ of a lost node's data folder"
        )
        raise FailedPrecondition(
            f"the log of {plan.best.node_id} holds a restore that was not carried out yet; its data folder lacks the "
            f"snapshot file for it (SHA-256 {sha256}): alone it would wait for the file for ever. Nothing was done. "
            f"{source} to {place}, readable for the node's user, and run this again"
        )


@dataclass(frozen=True)
class Recovered:
    """What was done: to whose folder, and the membership that it has now."""

    plan: Plan
    data_dir: Path
    configuration: Configuration
    index: int


def apply(
    data_dirs: Sequence[Path],
    reports: Sequence[Path],
    *,
    cluster_address: str,
    api_address: str,
    confirm: Callable[[Plan], None],
    random_bytes: Callable[[int], bytes],
    probe: Probe = accepts,
) -> Recovered:
    """Form a new membership from the best survivor, whose folder must be among `data_dirs`. All the folders are held
    from the comparison to the end. cluster_address, api_address: the node's new addresses; empty to keep them.
    confirm: is shown the plan, and raises to stop.

    Raises what `opened`, `recovery.plan`, `check_complete` and `check_silent` raise."""
    with ExitStack() as held:
        stopped = [held.enter_context(opened(data_dir)) for data_dir in data_dirs]
        plan = recovery.plan([one.survivor for one in stopped] + [read_report(path) for path in reports])
        best = next((one for one in stopped if one.survivor is plan.best), None)
        if best is None:
            raise FailedPrecondition(
                f"{plan.best.node_id} has the best log, and its data folder is not here: run this on its machine, with "
                "the reports of the others"
            )
        check_complete(plan, best.data_dir)
        check_silent(plan, probe)
        confirm(plan)
        old = next(member for member in plan.best.members if member.node_id == plan.best.node_id)
        member = Member(
            node_id=old.node_id,
            cluster_address=cluster_address or old.cluster_address,
            api_address=api_address or old.api_address,
        )
        configuration = recovery.recover(
            best.journal, member=member, term=plan.term, recovery_id=random_bytes(ID_BYTES)
        )
        return Recovered(plan, best.data_dir, configuration, best.journal.last_index)
