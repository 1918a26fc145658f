"""Recovery on real folders: what is refused, what a report is worth, and whose a data folder is."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.raft_rig import entries_of, put
from support.snapshot_files import file_of

from holdfast.cluster.raft import membership, restoring
from holdfast.cluster.raft.consensus import Member
from holdfast.cluster.raft.entries import Kind, follow
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.recovery import Plan, plan
from holdfast.cluster.raft.restoring import Restoration
from holdfast.proto.errors import AlreadyExists, Corruption, FailedPrecondition, InvalidArgument
from holdfast.server import identity, recovery
from holdfast.server.config import ConfigError
from holdfast.server.identity import Identity
from holdfast.server.process import DataFolder
from holdfast.server.recovery_text import plan_text
from holdfast.storage.rocksdb import RocksStore

MEMBERS = tuple(
    Member(node_id=f"node-{n}", cluster_address=f"127.0.0.{n}:1", api_address=f"127.0.0.{n}:8200") for n in range(1, 6)
)


def stopped(folder: Path, node_id: str, count: int) -> Path:
    """The folder of a stopped node with `count` entries after the founding one."""
    with DataFolder(folder):
        identity.claim(folder, node_id=node_id, cluster_name="production")
        store = RocksStore.open(folder / "journal")
        journal = Journal(store, initial=membership.initial(MEMBERS))
        for entry in entries_of(journal.last, *[put(b"k", b"%d" % n) for n in range(count)], term=1):
            journal.append(entry)
        journal.setCurrentTerm(1, None)
        journal.vouch()
        journal.note_founded()
        journal.sync()
        store.close()
        RocksStore.open(folder / "state").close()
    return folder


def apply(data_dirs: list[Path], reports: list[Path], *, agree: bool = True, answering: str = "") -> recovery.Recovered:
    def confirm(_plan: Plan) -> None:
        if not agree:
            raise FailedPrecondition("no")

    return recovery.apply(
        data_dirs, reports, cluster_address="", api_address="moved.example.org:8200", confirm=confirm,
        random_bytes=lambda count: b"r" * count, probe=lambda address: address == answering,
    )  # fmt: skip


def test_a_report_says_what_its_folder_says_and_does_for_it(tmp_path: Path) -> None:
    better, other = stopped(tmp_path / "4", "node-4", 5), stopped(tmp_path / "5", "node-5", 3)
    report = tmp_path / "node-5.json"
    recovery.write_report(report, recovery.inspect(other))
    assert recovery.read_report(report) == recovery.inspect(other)
    with pytest.raises(AlreadyExists, match="not overwritten"):
        recovery.write_report(report, recovery.inspect(better))
    done = apply([better], [report])
    assert "node-4: its log holds the most" in plan_text(done.plan)
    assert done.configuration.members == (
        Member(node_id="node-4", cluster_address="127.0.0.4:1", api_address="moved.example.org:8200"),
    )
    again = recovery.inspect(better)
    assert (again.members, again.lineage, again.last.index) == (done.configuration.members, b"r".hex() * 8, 7)
    with pytest.raises(FailedPrecondition, match="only voter"):
        apply([better], [])


@pytest.mark.parametrize("damage", ["cut", "edited", "empty", "other", "reordered"])
def test_a_report_that_is_not_as_it_was_written_is_refused(damage: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    whole = recovery.encode_report(recovery.inspect(stopped(tmp_path / "4", "node-4", 5)))
    edited = json.loads(whole)
    edited["survivor"]["last"]["index"] = 999
    texts = {
        "cut": whole[:-9], "edited": json.dumps(edited).encode(), "empty": b"", "other": b'{"format": "x"}',
        "reordered": whole.replace(b"report, format 1", b"report, format 2"),
    }  # fmt: skip
    report.write_bytes(texts[damage])
    with pytest.raises(InvalidArgument, match=r"report\.json"):
        recovery.read_report(report)


def test_nothing_changes_when_a_member_answers_or_nobody_agrees(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "4", "node-4", 5)
    before = recovery.inspect(folder)
    with pytest.raises(FailedPrecondition, match=r"answers at the address of node-2 \(127.0.0.2:1\)"):
        apply([folder], [], answering="127.0.0.2:1")
    with pytest.raises(FailedPrecondition, match="no"):
        apply([folder], [], agree=False)
    assert recovery.inspect(folder) == before


def test_the_folder_changed_is_that_of_the_best_survivor_or_none(tmp_path: Path) -> None:
    worse, better = stopped(tmp_path / "4", "node-4", 2), stopped(tmp_path / "5", "node-5", 3)
    report = tmp_path / "5.json"
    recovery.write_report(report, recovery.inspect(better))
    with pytest.raises(FailedPrecondition, match="node-5 has the best log, and its data folder is not here"):
        apply([worse], [report])
    with pytest.raises(InvalidArgument, match="node-5 is given twice"):
        apply([better], [report])


def with_restore(folder: Path, sha256: bytes) -> Path:
    """The log ends with a restore that is not carried out."""
    store = RocksStore.open(folder / "journal")
    journal = Journal(store, initial=None)
    payload = restoring.encode(Restoration(sha256, replace_keys=False))
    journal.append(
        follow(journal.last, term=1, cluster_time_ms=journal.last.cluster_time_ms, kind=Kind.RESTORE, payload=payload)
    )
    journal.sync()
    store.close()
    return folder


def test_a_survivor_is_not_left_to_wait_alone_for_the_file_of_a_restore(tmp_path: Path) -> None:
    file = file_of([(b"c1", b"v"), (b"s1", b"v")])
    sha256 = hashlib.sha256(file).digest()
    name = f"{sha256.hex()}.hfsnap"
    better = with_restore(stopped(tmp_path / "4", "node-4", 5), sha256)
    other = stopped(tmp_path / "5", "node-5", 3)
    before = recovery.inspect(better)
    assert before.restores == (sha256.hex(),)
    with pytest.raises(FailedPrecondition, match="No survivor has it: copy it from where it was restored"):
        apply([better, other], [])
    (other / "restore").mkdir()
    (other / "restore" / name).write_bytes(file)
    (better / "restore").mkdir()
    for damaged in (file[:-1], file_of([(b"c1", b"other")])):
        (better / "restore" / name).write_bytes(damaged)
        with pytest.raises(FailedPrecondition, match="node-5 has it: copy it"):
            apply([better, other], [])
    assert recovery.inspect(better) == before, "nothing was changed"
    assert f"SHA-256 {sha256.hex()}; node-5 has it" in plan_text(plan([before, recovery.inspect(other)]))
    (better / "restore" / name).write_bytes(file)
    assert apply([better, other], []).plan.lacking == ()


def test_a_node_that_runs_is_not_recovered(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "4", "node-4", 2)
    with DataFolder(folder), pytest.raises(ConfigError, match="in use"):
        recovery.inspect(folder)


def test_a_folder_that_is_no_nodes_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="not the data folder of a node"):
        recovery.inspect(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("part", ["journal", "state"])
def test_a_damaged_store_is_refused_with_the_nodes_name(part: str, tmp_path: Path) -> None:
    folder = stopped(tmp_path / "4", "node-4", 50)
    store = RocksStore.open(folder / part)
    store.write([(b"z%d" % n, b"x" * 500) for n in range(50)])
    store.sync()
    store.close()
    for table in (folder / part).glob("*.sst"):
        whole = bytearray(table.read_bytes())
        whole[20:60] = bytes(40)
        table.write_bytes(whole)
    with pytest.raises(Corruption, match=r"node-4.*Recover without this node"):
        recovery.inspect(folder)


def test_a_data_folder_is_one_nodes_and_stays_so(tmp_path: Path) -> None:
    identity.claim(tmp_path, node_id="node-1", cluster_name="production")
    identity.claim(tmp_path, node_id="node-1", cluster_name="renamed")
    assert identity.read(tmp_path) == Identity(node_id="node-1", cluster_name="renamed")
    with pytest.raises(ConfigError, match="is the data folder of node-1, and this node is node-2"):
        identity.claim(tmp_path, node_id="node-2", cluster_name="renamed")


def test_a_node_that_was_given_up_does_not_start_again_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "4", "node-4", 1)
    identity.leave_behind(folder, b"\x01" * 8)
    with pytest.raises(ConfigError, match="join it as a new one"):
        identity.claim(folder, node_id="node-4", cluster_name="production")
    with pytest.raises(FailedPrecondition, match="given up in an earlier recovery"):
        recovery.inspect(folder)


def test_a_damaged_identity_is_corruption(tmp_path: Path) -> None:
    (tmp_path / identity.FILE).write_bytes(b'{"node_id": "node-1"')
    with pytest.raises(Corruption, match="does not decode"):
        identity.read(tmp_path)


def holdfastd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.server.main", "recover", *arguments],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_command_asks_for_the_clusters_name_and_refuses_wrong_addresses(tmp_path: Path) -> None:
    folder = str(stopped(tmp_path / "4", "node-4", 5))
    unasked = holdfastd("apply", "--data-dir", folder)
    assert (unasked.returncode, "--confirm production" in unasked.stderr) == (1, True)
    misnamed = holdfastd("apply", "--data-dir", folder, "--confirm", "staging")
    assert (misnamed.returncode, "not the cluster's name, production" in misnamed.stderr) == (1, True)
    odd = holdfastd("apply", "--data-dir", folder, "--confirm", "production", "--cluster-address", "0.0.0.0:1")
    assert (odd.returncode, "cannot be dialled" in odd.stderr) == (1, True)
    none = holdfastd("apply", "--confirm", "production")
    assert (none.returncode, "--data-dir" in none.stderr) == (1, True)
    assert json.loads(holdfastd("inspect", "--data-dir", folder, "--format", "json").stdout)["data"]["recoveries"] == 0
    done = holdfastd("apply", "--data-dir", folder, "--confirm", "production")
    assert done.returncode == 0, done.stderr
    assert json.loads(holdfastd("inspect", "--data-dir", folder, "--format", "json").stdout)["data"]["recoveries"] == 1


def test_another_users_folder_is_refused_before_anything_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path / "4", "node-4", 1)
    before = sorted(path.name for path in (folder / "journal").iterdir())
    monkeypatch.setattr("os.geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(FailedPrecondition, match="belongs to another user"):
        recovery.inspect(folder)
    assert sorted(path.name for path in (folder / "journal").iterdir()) == before
