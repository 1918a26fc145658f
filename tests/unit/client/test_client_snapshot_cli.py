"""The snapshot commands: what they ask before they replace a state, and what is left when something goes wrong."""

from pathlib import Path

import pytest
from support.snapshot_files import file_of

from holdfast.client.cli.app import App
from holdfast.client.cli.main import run
from holdfast.client.failures import LocalError
from holdfast.client.snapshot_files import inspect, new_file


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(environment={"HOLDFAST_ADDR": "127.0.0.1:1", "HOLDFAST_MAX_RETRIES": "0"}, home=tmp_path)


def test_inspect_shows_counts_and_hashes_without_a_cluster(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.hfsnap"
    file.write_bytes(file_of([(b"l1", b"v"), (b"s1", b"v"), (b"s2", b"v")]))
    assert run(["operator", "raft", "snapshot", "inspect", str(file)], app) == 0
    shown = capsys.readouterr().out
    assert "Records (shared)" in shown
    assert inspect(file).sha256 in shown


@pytest.mark.parametrize("command", ["inspect", "restore"])
def test_a_file_that_is_none_or_damaged_or_missing_is_a_local_error(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    damaged = bytearray(file_of([(b"s1", b"value")]))
    damaged[-1] ^= 1
    for name, data, words in (
        ("a", b"text", "cut short"),
        ("b", bytes(damaged), "damaged"),
        ("c", None, "No such file"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        assert run(["operator", "raft", "snapshot", command, str(tmp_path / name)], app) == 1
        assert words in capsys.readouterr().err


def test_a_file_that_is_not_kept_leaves_nothing_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def fails() -> None:
        with new_file(path, replace=False) as new:
            new.file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert not list(tmp_path.iterdir())
    with new_file(path, replace=False) as new:
        new.file.write(b"whole")
        path.write_bytes(b"another's")
        new.sync()
        with pytest.raises(LocalError, match="exists"):
            new.keep()
    assert path.read_bytes() == b"another's"
    with new_file(path, replace=True) as new:
        new.file.write(b"whole")
        new.sync()
        new.keep()
    assert path.read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_a_local_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be written"), new_file(tmp_path / "no" / "file", replace=False):
        pass
