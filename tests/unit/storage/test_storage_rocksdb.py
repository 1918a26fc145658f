"""The RocksDB driver on real files: damage, torn logs, locks, foreign folders. No damage may give a short answer."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from holdfast.proto.errors import Corruption, FailedPrecondition, HoldfastError, StorageFailed
from holdfast.storage.limits import STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX
from holdfast.storage.rocksdb import RocksStore

WRITES = 12
VALUE = bytes(range(60))
EXPECTED = [entry for n in range(WRITES) for entry in ((b"k%02da" % n, VALUE), (b"k%02db" % n, VALUE))]
RECORD = 7 + 12 + 2 * (1 + 1 + 4 + 1 + len(VALUE))
"""The size of one write in the log: header, batch header, two puts."""


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """The folder as a machine leaves it that loses power after a sync: everything still in the log."""
    store = RocksStore.open(tmp_path / "live")
    for n in range(WRITES):
        store.write([(b"k%02da" % n, VALUE), (b"k%02db" % n, VALUE)])
    store.sync()
    shutil.copytree(tmp_path / "live", tmp_path / "cut-off")
    store.close()
    return tmp_path / "cut-off"


def log_of(folder: Path) -> Path:
    (log,) = folder.glob("*.log")
    return log


def reopened(folder: Path) -> list[tuple[bytes, bytes]]:
    store = RocksStore.open(folder)
    try:
        return list(store.scan(b""))
    finally:
        store.close()


def variant(folder: Path, log: bytes) -> Path:
    changed = folder.with_name("variant")
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(folder, changed)
    log_of(changed).write_bytes(log)
    return changed


def tables(folder: Path, count: int = 500) -> list[Path]:
    store = RocksStore.open(folder)
    store.write([(b"k%05d" % n, b"v" * 100) for n in range(count)])
    store.close()
    reopened(folder)  # replays the log into a table
    found = list(folder.glob("*.sst"))
    assert found
    return found


def test_a_log_torn_anywhere_gives_a_leading_part_of_the_writes_each_whole(cut_off: Path) -> None:
    log = log_of(cut_off).read_bytes()
    assert len(log) == WRITES * RECORD
    for length in range(0, len(log) + 1, 41):
        assert reopened(variant(cut_off, log[:length])) == EXPECTED[: length // RECORD * 2], length


def test_no_changed_byte_of_the_log_is_ever_a_shorter_log(cut_off: Path) -> None:
    log = log_of(cut_off).read_bytes()
    inside = [n * RECORD + part for n in (0, 5, WRITES - 1) for part in (0, 3, 4, 5, 6, 7, 20, RECORD - 1)]
    for position in inside:
        for bit in (0, 2, 7):
            changed = bytearray(log)
            changed[position] ^= 1 << bit
            with pytest.raises(Corruption):
                reopened(variant(cut_off, bytes(changed)))


def test_zeros_are_taken_for_the_end_of_a_log_only_where_nothing_follows(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "live")
    writes = [(b"k%02d" % n, bytes([n + 1]) * 8_000) for n in range(10)]
    for entry in writes:
        store.write([entry])
    store.sync()
    shutil.copytree(tmp_path / "live", tmp_path / "cut-off")
    store.close()
    log = log_of(tmp_path / "cut-off").read_bytes()
    assert reopened(variant(tmp_path / "cut-off", log + bytes(50_000))) == writes
    record = 7 + 12 + 1 + 1 + 3 + 2 + 8_000
    for start, end in ((record, 32_768), (record, 2 * record), (record, 2 * 32_768), (0, 100)):
        changed = log[:start] + bytes(end - start) + log[end:]
        with pytest.raises(Corruption):
            reopened(variant(tmp_path / "cut-off", changed))


def test_zeros_over_one_write_of_a_short_log_do_not_end_it(cut_off: Path) -> None:
    log = log_of(cut_off).read_bytes()
    with pytest.raises(Corruption, match="zeros"):
        reopened(variant(cut_off, log[:RECORD] + bytes(RECORD) + log[2 * RECORD :]))


def test_a_log_torn_before_a_later_log_is_refused(cut_off: Path) -> None:
    log = log_of(cut_off)
    later = log.with_name(f"{int(log.stem) + 100:06}.log")
    later.write_bytes(log.read_bytes()[:RECORD])
    log.write_bytes(log.read_bytes()[:-5])
    with pytest.raises(Corruption, match="a later log follows"):
        RocksStore.open(cut_off)


def test_a_write_over_several_blocks_of_the_log_survives_and_its_damage_is_seen(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "live")
    big = bytes(range(256)) * 700
    store.write([(b"big", big)])
    store.write([(b"small", b"v")])
    store.sync()
    shutil.copytree(tmp_path / "live", tmp_path / "cut-off")
    store.close()
    log = log_of(tmp_path / "cut-off").read_bytes()
    assert reopened(variant(tmp_path / "cut-off", log)) == [(b"big", big), (b"small", b"v")]
    assert reopened(variant(tmp_path / "cut-off", log[:100_000])) == []
    for position in (5, 32_768 + 5, 32_768 + 6, 50_000, 5 * 32_768 + 5):
        changed = bytearray(log)
        changed[position] ^= 0x40
        with pytest.raises(Corruption):
            reopened(variant(tmp_path / "cut-off", bytes(changed)))


def test_a_damaged_table_gives_an_error_and_never_a_short_answer(tmp_path: Path) -> None:
    (table,) = tables(tmp_path / "store")
    data = bytearray(table.read_bytes())
    data[len(data) // 3] ^= 1
    table.write_bytes(data)
    store = RocksStore.open(tmp_path / "store")
    with pytest.raises(Corruption, match="damaged"):
        list(store.scan(b""))
    answers = []
    for n in range(500):
        for read in (lambda key: store.get(key), lambda key: (store.seek(key) or (b"", None))[1]):
            try:
                answers.append(read(b"k%05d" % n))
            except Corruption:
                answers.append(b"refused")
    assert set(answers) == {b"v" * 100, b"refused"}
    store.close()


def test_a_short_or_missing_table_is_refused_at_the_start(tmp_path: Path) -> None:
    (table,) = tables(tmp_path / "store")
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Corruption):
        RocksStore.open(tmp_path / "store")
    table.unlink()
    with pytest.raises(Corruption):
        RocksStore.open(tmp_path / "store")


def test_a_lost_file_current_is_never_answered_with_an_empty_store(tmp_path: Path) -> None:
    tables(tmp_path / "store")
    (tmp_path / "store" / "CURRENT").unlink()
    with pytest.raises(Corruption, match="CURRENT"):
        RocksStore.open(tmp_path / "store")


def test_a_folder_that_another_process_has_open_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from holdfast.storage.rocksdb import RocksStore;"
        "store = RocksStore.open(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            script,
            str(tmp_path / "store"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(FailedPrecondition, match="open in another process"):
            RocksStore.open(tmp_path / "store")
        holder.kill()
    RocksStore.open(tmp_path / "store").close()


def test_what_was_written_survives_a_killed_process_unsynced(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from holdfast.storage.rocksdb import RocksStore;"
        "store = RocksStore.open(pathlib.Path(sys.argv[1]));"
        "[store.write([(b'k%d' % n, b'v')]) for n in range(10)]; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], check=False)
    assert len(reopened(tmp_path / "store")) == 10


def test_a_folder_in_the_other_key_encoding_is_refused(tmp_path: Path) -> None:
    RocksStore.open(tmp_path / "store").close()
    config = tmp_path / "store" / "rocksdict-config.json"
    config.write_text(config.read_text().replace("true", "false"))
    with pytest.raises(FailedPrecondition, match="raw_mode"):
        RocksStore.open(tmp_path / "store")


@pytest.mark.parametrize("raw_mode", [True, False])
def test_a_database_of_another_program_is_refused_and_not_touched(tmp_path: Path, raw_mode: bool) -> None:
    other = Rdict(str(tmp_path / "store"), Options(raw_mode=raw_mode))
    other[b"k"] = b"v"
    other.close()
    before = {file.name: file.read_bytes() for file in (tmp_path / "store").iterdir()}
    with pytest.raises(FailedPrecondition, match="not Holdfast's"):
        RocksStore.open(tmp_path / "store")
    assert {file.name: file.read_bytes() for file in (tmp_path / "store").iterdir()} == before


@pytest.mark.parametrize("left", ["", "{", '{"raw', "[]"])
def test_a_half_written_rocksdict_config_does_not_keep_the_store_closed(tmp_path: Path, left: str) -> None:
    tables(tmp_path / "store", count=3)
    (tmp_path / "store" / "rocksdict-config.json").write_text(left)
    assert len(reopened(tmp_path / "store")) == 3


def test_a_creation_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    RocksStore.open(tmp_path / "store").close()
    for name in ("CURRENT", "IDENTITY"):
        (tmp_path / "store" / name).unlink()
    log_of(tmp_path / "store").unlink()  # RocksDB makes CURRENT before the first log
    assert reopened(tmp_path / "store") == []


def test_a_store_of_a_later_format_is_refused(tmp_path: Path) -> None:
    RocksStore.open(tmp_path / "store").close()
    (tmp_path / "store" / "holdfast-store").write_text("holdfast store, format 2\n")
    with pytest.raises(FailedPrecondition, match="does not know"):
        RocksStore.open(tmp_path / "store")


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageFailed, match="cannot be used"):
        RocksStore.open(tmp_path / "file")


def test_the_folder_is_private(tmp_path: Path) -> None:
    RocksStore.open(tmp_path / "a" / "b").close()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_close_ends_live_scans_and_frees_the_folder(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    store.write([(b"a", b"1"), (b"b", b"2")])
    scan, unstarted = store.scan(b""), store.scan(b"")
    assert next(scan) == (b"a", b"1")
    store.close()
    store.close()
    for ended in (scan, unstarted):
        with pytest.raises(StorageFailed):
            next(ended)
    for use in (lambda: store.get(b"a"), lambda: store.write([]), store.sync, lambda: store.scan(b"")):
        with pytest.raises(StorageFailed, match="closed"):
            use()
    assert len(reopened(tmp_path / "store")) == 2


def test_a_failed_sync_ends_the_store(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    database = store._database

    class Refusing:
        def flush_wal(self, sync: bool) -> None:
            raise OSError("IO error: No space left on device")

    store._database = Refusing()  # type: ignore[assignment]
    with pytest.raises(StorageFailed, match="No space left"):
        store.sync()
    store._database = database
    for use in (store.sync, lambda: store.write([(b"a", b"1")]), lambda: store.get(b"a")):
        with pytest.raises(StorageFailed, match="sync of the store"):
            use()
    store.close()


def test_an_ill_formed_range_changes_nothing_and_does_not_poison_the_store(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    store.write([(b"a", b"1")])
    store.delete_range(b"z", b"a")
    store.delete_range(b"a", b"a")
    store.write([(b"b", b"2")])
    assert list(store.scan(b"")) == [(b"a", b"1"), (b"b", b"2")]
    store.close()


def test_a_checkpoint_opens_as_a_store_of_its_moment(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    store.write([(b"a", b"1")])
    (tmp_path / "copy.building").mkdir()
    (tmp_path / "copy.building" / "left over").write_text("x")
    store.checkpoint(str(tmp_path / "copy"))
    store.write([(b"b", b"2")])
    assert reopened(tmp_path / "copy") == [(b"a", b"1")]
    with pytest.raises(HoldfastError, match="exists"):
        store.checkpoint(str(tmp_path / "copy"))
    store.close()


def test_keys_and_values_have_limits(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    store.write([(b"k" * STORE_KEY_BYTES_MAX, bytes(STORE_VALUE_BYTES_MAX))])
    for puts in ([(b"", b"")], [(b"k" * (STORE_KEY_BYTES_MAX + 1), b"")], [(b"k", bytes(STORE_VALUE_BYTES_MAX + 1))]):
        with pytest.raises(ValueError, match="allowed"):
            store.write([(b"other", b""), *puts])
    assert store.get(b"other") is None
    store.close()


def test_the_end_of_a_scan_stands_whatever_becomes_of_the_memory_it_was_given_in(tmp_path: Path) -> None:
    store = RocksStore.open(tmp_path / "store")
    keys = [b"range-%03d" % n for n in range(9)]
    store.write([(key, b"") for key in keys])
    for end in range(1, 9):
        scan = store.scan(b"", b"range-%03d" % end)
        others = [store.scan(b"", b"range-%03d" % 0) for _ in range(20)]
        assert [key for key, _ in scan] == keys[:end]
        assert all(list(other) == [] for other in others)
    store.close()
