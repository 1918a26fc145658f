"""Scheduled snapshots: which are kept, what a place must give back, and what of node.yaml is refused."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from support.snapshot_files import metadata_of

from holdfast.client.local import free_ports
from holdfast.proto.errors import Unavailable
from holdfast.server.snapshot_config import S3Settings, SnapshotSettings, placed, problems
from holdfast.server.snapshot_s3 import S3Target
from holdfast.server.snapshot_targets import FolderTarget, Stored, Target, name_of, newest_first, outdated, read_name

CLUSTER = "8a7f0011-0000-4000-8000-000000000000"
ages = st.lists(st.integers(0, 10_000), max_size=20)


@given(ages, st.integers(1, 10), st.none() | st.integers(1, 10_000))
def test_the_newest_is_never_removed_and_never_more_than_so_many_are_kept(
    created: list[int], keep: int, keep_for_s: int | None
) -> None:
    stored = newest_first([Stored(f"{n}", 1, float(at), n) for n, at in enumerate(created)])
    old = outdated(stored, keep=keep, keep_for_s=keep_for_s, now_s=20_000.0)
    kept = [one for one in stored if one not in old]
    assert len(kept) <= keep
    if stored:
        assert stored[0] in kept
    if keep_for_s is not None:
        assert all(20_000 - one.created_s <= keep_for_s for one in kept[1:])
    else:
        assert len(kept) == min(keep, len(stored))


def test_a_name_says_when_and_of_what_the_snapshot_is() -> None:
    name = name_of(metadata_of([], cluster_id=CLUSTER))
    assert name == "holdfast-8a7f0011-20261124T120000Z-41.hfsnap"
    assert read_name(name, 5, CLUSTER) == Stored(name, 5, 1795521600.0, 41)
    assert read_name(name, 5, "00000000-0") is None
    assert read_name(name + ".partial", 5, CLUSTER) is None
    assert read_name(name.replace("1124", "1399"), 5, CLUSTER) is None


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    (port,) = free_ports(1)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    os.environ.update(AWS_ACCESS_KEY_ID="test-id", AWS_SECRET_ACCESS_KEY="test-key", AWS_EC2_METADATA_DISABLED="true")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
            os.environ.pop(name)
        server.stop()


def s3_target(endpoint: str, bucket: str) -> S3Target:
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return S3Target(bucket, "some/prefix", S3Settings(endpoint=endpoint, region="us-east-1", path_style=True))


@pytest.fixture(params=["folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path, s3: str) -> Target:
    if request.param == "folder":
        return FolderTarget(tmp_path / "made" / "later")
    return s3_target(s3, "bucket-" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16])


def test_what_is_stored_is_listed_and_removed_and_strangers_are_left_alone(target: Target, tmp_path: Path) -> None:
    assert target.stored(CLUSTER) == []
    file = tmp_path / "file"
    file.write_bytes(b"x" * (40 * 1024 * 1024))  # in several parts
    sha256 = hashlib.sha256(file.read_bytes()).digest()
    names = [f"holdfast-8a7f0011-2026112{day}T120000Z-{day}.hfsnap" for day in range(3)]
    for name in [names[1], names[0], names[2], "holdfast-00000000-20261124T120000Z-9.hfsnap", "else.txt"]:
        target.store(file, name, sha256)
    assert [one.name for one in target.stored(CLUSTER)] == names[::-1]
    assert target.stored(CLUSTER)[0].size == 40 * 1024 * 1024
    target.remove(names[2])
    target.remove(names[2])
    assert [one.name for one in target.stored(CLUSTER)] == [names[1], names[0]]
    assert len(target.stored("00000000-1")) == 1


def test_what_a_place_does_not_give_back_as_it_was_is_not_kept(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with pytest.raises(Unavailable, match="give back"):
        target.store(file, "holdfast-8a7f0011-20261124T120000Z-1.hfsnap", bytes(32))
    assert target.stored(CLUSTER) == []


def test_a_store_that_refuses_or_is_gone_is_told_without_a_word_of_keys(
    s3: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    missing = S3Target("no-such-bucket", "", S3Settings(endpoint=s3, region="us-east-1", path_style=True))
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        missing.stored(CLUSTER)
    gone = S3Target("b", "", S3Settings(endpoint="http://127.0.0.1:1", region="us-east-1", path_style=True))
    with pytest.raises(Unavailable, match="EndpointConnectionError") as told:
        gone.stored(CLUSTER)
    for text in (told.value.message, caplog.text):
        assert "test-id" not in text
        assert "test-key" not in text


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be used"):
        FolderTarget(tmp_path / "file" / "below").store(tmp_path / "file", "x", hashlib.sha256(b"").digest())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (SnapshotSettings(target=""), "snapshots.target"),
        (SnapshotSettings(target="s3:///prefix"), "snapshots.target"),
        (SnapshotSettings(target="x", interval="1s"), "snapshots.interval"),
        (SnapshotSettings(target="x", interval="often"), "snapshots.interval"),
        (SnapshotSettings(target="x", keep=0), "snapshots.keep"),
        (SnapshotSettings(target="x", keep_for="0s"), "snapshots.keep_for"),
        (SnapshotSettings(target="s3://b", s3=S3Settings(endpoint="minio:9000")), "snapshots.s3.endpoint"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(settings: SnapshotSettings, field: str) -> None:
    assert [name for name, _ in problems(settings)] == [field]


def test_good_settings_pass_and_paths_begin_at_the_file(tmp_path: Path) -> None:
    settings = SnapshotSettings(target="backups", interval="6h", keep_for="30d")
    assert not problems(settings)
    found = placed(settings, tmp_path)
    assert found is not None
    assert found.target == str(tmp_path / "backups")
    bucket = placed(SnapshotSettings(target="s3://bucket/a/b/"), tmp_path)
    assert bucket is not None
    assert bucket.bucket == ("bucket", "a/b")
