"""The state's home: copies, receptions, and an install that a crash at any step leaves as the old state or the new."""

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.proto.errors import Corruption, FailedPrecondition
from holdfast.storage.home import StateCopy, StateHome, checked_files, digest_of_names
from holdfast.storage.memoryhome import MemoryHome
from holdfast.storage.rockshome import RocksHome

STEPS = ("closed", "set aside", "renamed", "durable", "opened")


class Died(BaseException):
    """The process was killed."""


def transfer(copy: StateCopy, home: StateHome, *, chunk: int = 1000):
    """Everything of a copy, received at another home."""
    reception = home.receive(checked_files(copy.files))
    offset, size = 0, sum(length for _, length in copy.files)
    while offset < size:
        data = copy.read(offset, chunk)
        assert len(data) == min(chunk, size - offset)
        reception.write(data)
        offset += len(data)
    return reception


def fill(home: StateHome, value: bytes) -> None:
    home.store.write([(b"k%03d" % n, value * 20) for n in range(200)])
    home.store.sync()


def homes(kind: str, tmp_path: Path) -> tuple[StateHome, StateHome]:
    if kind == "memory":
        return MemoryHome(), MemoryHome()
    return RocksHome.open(tmp_path / "one" / "state"), RocksHome.open(tmp_path / "other" / "state")


@pytest.mark.parametrize("kind", ["memory", "rocks"])
@pytest.mark.parametrize("chunk", [700, 100_000])
def test_a_copy_arrives_whole_and_is_installed(kind: str, chunk: int, tmp_path: Path) -> None:
    one, other = homes(kind, tmp_path)
    fill(one, b"new")
    fill(other, b"old")
    one.prepare()
    copy = one.copy()
    one.store.write([(b"later", b"not in the copy")])
    reception = transfer(copy, other, chunk=chunk)
    whole = b"".join(copy.read(offset, 50_000) for offset in range(0, sum(s for _, s in copy.files), 50_000))
    assert len(whole) == sum(size for _, size in copy.files)
    assert reception.finish() == transfer_digest(copy, whole)
    looked = reception.open()
    assert looked.get(b"k000") == b"new" * 20
    looked.close()
    other.install(reception)
    other.tidy()
    assert dict(other.store.scan(b"")) == {key: v for key, v in one.store.scan(b"") if key != b"later"}
    copy.discard()
    copy.discard()
    one.close()
    other.close()
    assert {p.name for p in tmp_path.glob("*/*")} <= {"state"}


def transfer_digest(copy: StateCopy, whole: bytes) -> bytes:
    digest = digest_of_names(checked_files(copy.files))
    digest.update(whole)
    return digest.digest()


def test_the_digest_covers_names_sizes_and_contents() -> None:
    seen = set()
    for files, data in [
        ((("a", 1), ("b", 1)), b"xy"),
        ((("a", 2), ("b", 0)), b"xy"),
        ((("a", 1), ("c", 1)), b"xy"),
        ((("a", 1), ("b", 1)), b"xz"),
    ]:
        reception = MemoryHome().receive(files)
        reception.write(data)
        seen.add(reception.finish())
    assert len(seen) == 4


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_of_an_install_leaves_the_old_state_or_the_new(step: str, tmp_path: Path) -> None:
    died: list[str] = []

    def on_step(reached: str) -> None:
        if reached == step:
            died.append(reached)
            raise Died

    one = RocksHome.open(tmp_path / "one" / "state")
    other = RocksHome.open(tmp_path / "other" / "state", on_step=on_step)
    fill(one, b"new")
    fill(other, b"old")
    copy = one.copy()
    reception = transfer(copy, other)
    reception.finish()
    with pytest.raises(Died):
        other.install(reception)
    assert died == [step]
    other.close()
    again = RocksHome.open(tmp_path / "other" / "state")
    expected = b"old" if step in ("closed", "set aside") else b"new"
    assert {value for _, value in again.store.scan(b"")} == {expected * 20}
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["state"], "orphans are removed at start"
    again.close()
    one.close()


def test_half_a_reception_and_a_forgotten_copy_are_removed_at_start(tmp_path: Path) -> None:
    one, other = homes("rocks", tmp_path)
    fill(one, b"new")
    copy = one.copy()
    reception = other.receive(checked_files(copy.files))
    reception.write(copy.read(0, 10))
    for home in (one, other):
        home.close()
    assert len(list(tmp_path.glob("*/*"))) == 4
    for name in ("one", "other"):
        RocksHome.open(tmp_path / name / "state").close()
    assert [p.name for p in tmp_path.glob("*/*")] == ["state", "state"]


def test_a_reception_begins_anew_where_an_earlier_one_was_left(tmp_path: Path) -> None:
    one, other = homes("rocks", tmp_path)
    fill(one, b"new")
    copy = one.copy()
    other.receive(checked_files(copy.files)).write(copy.read(0, 1000))
    reception = transfer(copy, other)
    reception.finish()
    other.install(reception)
    assert other.store.get(b"k000") == b"new" * 20
    one.close()
    other.close()


@pytest.mark.parametrize("damage", ["first table", "CURRENT"])
def test_a_damaged_copy_does_not_open(damage: str, tmp_path: Path) -> None:
    one, other = homes("rocks", tmp_path)
    fill(one, b"new")
    one.prepare()
    copy = one.copy()
    reception = transfer(copy, other)
    reception.finish()
    if damage == "CURRENT":
        (reception.path / "CURRENT").unlink()
    else:
        table = next(p for p in reception.path.iterdir() if p.suffix == ".sst")
        table.write_bytes(table.read_bytes()[:-60] + bytes(60))
    with pytest.raises((Corruption, FailedPrecondition)):
        list(reception.open().scan(b""))
    one.close()
    other.close()


@pytest.mark.parametrize(
    "files",
    [
        [("../etc", 1)], [("/etc", 1)], [("a/b", 1)], [("", 1)], [(".hidden", 1)], [("b", 1), ("a", 1)],
        [("a", 1), ("a", 1)],
    ],
)  # fmt: skip
def test_names_that_are_no_plain_names_are_refused(files: list[tuple[str, int]]) -> None:
    with pytest.raises(ValueError, match="plain names"):
        checked_files(files)


def test_a_home_stays_usable_while_it_is_copied(tmp_path: Path) -> None:
    home = RocksHome.open(tmp_path / "state")
    fill(home, b"a")
    step: Callable[[], None] = home.prepare
    step()
    copies = [home.copy() for _ in range(3)]
    fill(home, b"b")
    assert home.store.get(b"k000") == b"b" * 20
    for copy in copies:
        copy.discard()
    home.close()
