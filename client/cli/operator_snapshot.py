"""`holdfast operator raft snapshot`: the state of the cluster as a file, and back."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app
from holdfast.client.cli.output import pairs
from holdfast.client.snapshot_files import SnapshotInfo, inspect


@click.group(cls=Group, context_settings=SETTINGS)
def snapshot() -> None:
    """Save and look at the state of the whole cluster.

    \b
    Examples:
      holdfast operator raft snapshot save holdfast.hfsnap
      holdfast operator raft snapshot inspect holdfast.hfsnap
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
