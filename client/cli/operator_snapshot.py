"""`holdfast operator raft snapshot`: the state of the cluster as a file, and back."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app, yes_option
from holdfast.client.cli.errors import Declined
from holdfast.client.cli.output import pairs, table, timestamp
from holdfast.client.snapshot_files import SnapshotInfo, inspect
from holdfast.client.snapshots import RestoredState


@click.group(cls=Group, context_settings=SETTINGS)
def snapshot() -> None:
    """Save, look at and restore the state of the whole cluster.

    \b
    Examples:
      holdfast operator raft snapshot save holdfast.hfsnap
      holdfast operator raft snapshot inspect holdfast.hfsnap
      holdfast operator raft snapshot restore holdfast.hfsnap
    """


@snapshot.command(context_settings=SETTINGS)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file of this name.")
@pass_app
def save(app: App, file: Path, force: bool) -> None:  # noqa: FBT001
    """Save the state of the cluster to a file, and verify the file.

    The file is ciphertext; it opens only with a threshold of the shares that are in use now. Keep both, apart.

    \b
    Example:
      holdfast operator raft snapshot save /backups/holdfast-$(date +%F).hfsnap
    """
    meter = Meter("Saving")
    with app.client() as client:
        saved = client.snapshots.save(file, replace=force, progress=meter.show)
    meter.end()
    facts = {"file": str(saved.path), "node_id": saved.node_id, **_facts(saved.info)}
    app.show({"data": facts}, lambda: f"Saved and verified {saved.path}.\n\n{_text(saved.info)}")


@snapshot.command("list", context_settings=SETTINGS)
@pass_app
def list_(app: App) -> None:
    """Show the snapshots that the leader has saved by the clock.

    \b
    Example:
      holdfast operator raft snapshot list
    """
    with app.client() as client:
        found = client.snapshots.list()
    rows = [[one.name, one.size, one.created, one.index] for one in found.snapshots]
    facts = [
        {"name": one.name, "size": one.size, "created": timestamp(one.created), "index": one.index}
        for one in found.snapshots
    ]
    app.show(
        {"data": {"target": found.target, "snapshots": facts}},
        lambda: f"In {found.target}:\n\n{table(['Name', 'Size', 'Created', 'Raft Index'], rows)}",
    )


@snapshot.command("inspect", context_settings=SETTINGS)
@click.argument("file", type=click.Path(path_type=Path))
@pass_app
def inspect_(app: App, file: Path) -> None:
    """Check a snapshot file, every byte of it, and show what it holds. Needs no cluster.

    \b
    Examples:
      holdfast operator raft snapshot inspect holdfast.hfsnap
      holdfast operator raft snapshot inspect -format=json holdfast.hfsnap
    """
    info = inspect(file)
    app.show({"data": {"file": str(file), **_facts(info)}}, lambda: _text(info))


@snapshot.command(context_settings=SETTINGS)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Also restore a snapshot with other keys than the cluster's.")
@yes_option
@pass_app
def restore(app: App, file: Path, force: bool, yes: bool) -> None:  # noqa: FBT001
    """Replace the state of the whole cluster by that of a snapshot.

    Everything written since the snapshot is gone, on every node: secrets, tokens, policies, mounts. Tokens that were
    revoked since are valid again. A snapshot whose keys are not the cluster's is refused; with -force it is restored
    with its own seal, and then every node is sealed and opens with the shares that belong to the snapshot.

    \b
    Examples:
      holdfast operator raft snapshot restore holdfast.hfsnap
      holdfast operator raft snapshot restore -yes -force other-cluster.hfsnap
    """
    info = inspect(file)
    meter = Meter("Restoring")
    with app.client() as client:
        if not yes:
            _confirm(client.sys.seal_status().cluster_name, info, force=force)
        done = client.snapshots.restore(file, force=force, progress=meter.show)
    meter.end()
    app.show({"data": asdict(done) | {"file": str(file)}}, lambda: _outcome(done))


def _confirm(cluster_name: str, info: SnapshotInfo, *, force: bool) -> None:
    question = (
        f"The whole state of the cluster {cluster_name} will be replaced by the snapshot of"
        f" {info.metadata.cluster_name} of {info.metadata.created}. Everything acknowledged since then is gone, and"
        " tokens revoked since then are valid again."
    )
    if force:
        question += " If its keys are others, every node is sealed and opens with that snapshot's shares only."
    if not sys.stdin.isatty():
        raise Declined(f"{question} Nothing was done, because nobody can be asked here. Add -yes to go ahead.")
    click.echo(f"{question}\nType the name of the cluster to go ahead: ", nl=False, err=True)
    if sys.stdin.readline().strip() != cluster_name:
        raise Declined("Nothing was done.")


def _outcome(done: RestoredState) -> str:
    lines = [f"Restored at Raft index {done.index}, on {', '.join(done.prepared)}."]
    if done.unprepared:
        lines.append(f"These follow by themselves as soon as they can: {', '.join(done.unprepared)}.")
    if done.keys_replaced:
        lines.append("Every node is sealed. Unseal it with `holdfast operator unseal` and the snapshot's shares.")
    return "\n".join(lines)


class Meter:
    """How far a transfer is, on a terminal only."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = -1

    def show(self, done: int, expected: int) -> None:
        """So many bytes of about so many."""
        percent = min(100, 100 * done // max(1, expected))
        if percent != self._shown and sys.stderr.isatty():
            self._shown = percent
            click.echo(f"\r{self._what}: {done / 2**20:.1f} MiB, {percent} %", nl=False, err=True)

    def end(self) -> None:
        """The transfer is over."""
        if self._shown >= 0:
            click.echo("", err=True)


def _facts(info: SnapshotInfo) -> dict[str, object]:
    meta = info.metadata
    return {
        "cluster_id": meta.cluster_id,
        "cluster_name": meta.cluster_name,
        "key_set": meta.key_set,
        "index": meta.index,
        "term": meta.term,
        "created": meta.created,
        "version": meta.version,
        "made_by": meta.node_id,
        "size": info.size,
        "content_bytes": meta.content_bytes,
        "records": dict(meta.records),
        "members": [asdict(member) for member in meta.members],
        "sha256": info.sha256,
        "content_sha256": meta.content_sha256,
        "verified": True,
    }


def _text(info: SnapshotInfo) -> str:
    meta = info.metadata
    return pairs(
        {
            "Cluster": f"{meta.cluster_name} ({meta.cluster_id})",
            "Key Set": meta.key_set,
            "Raft Index": meta.index,
            "Raft Term": meta.term,
            "Created": meta.created,
            "Version": meta.version,
            "Made By": meta.node_id,
            "Members": ", ".join(member.node_id for member in meta.members),
            "Size": f"{info.size} bytes",
            **{f"Records ({name})": count for name, count in sorted(meta.records.items())},
            "SHA-256": info.sha256,
            "Verified": "every hash and every count is right",
        }
    )
