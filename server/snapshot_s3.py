"""Snapshots in an S3-compatible store, by boto3 (the extra `aws`), which finds its credentials by itself.

Big files go up in parts. What is there is read back and hashed, whatever checksums the store knows. No error here
quotes what the store or the library said beyond its code: requests are signed, and their texts may tell of keys.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from holdfast.proto.errors import Unavailable
from holdfast.server.config import ConfigError
from holdfast.server.snapshot_config import S3Settings
from holdfast.server.snapshot_targets import READ_BYTES, Stored, newest_first, read_name

PART_BYTES = 16 * 1024 * 1024
ATTEMPTS = 4
CONNECT_S, READ_S = 10, 60

T = TypeVar("T")


class S3Target:
    """A bucket and a prefix."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        """Raises ConfigError when boto3 is missing or the settings do not make a client."""
        try:
            boto3 = importlib.import_module("boto3")
            core = importlib.import_module("botocore.config")
            self._errors = importlib.import_module("botocore.exceptions")
            transfer = importlib.import_module("boto3.s3.transfer")
        except ImportError:
            raise ConfigError("snapshots.target: an S3 store needs boto3: pip install 'holdfast[aws]'") from None
        for name in ("boto3", "botocore", "s3transfer", "urllib3"):
            logging.getLogger(name).setLevel(logging.WARNING)  # below, they log headers with signatures
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._parts = transfer.TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=2
        )
        try:
            self._client: Any = boto3.client(
                "s3",
                endpoint_url=settings.endpoint or None,
                region_name=settings.region or None,
                verify=settings.ca_file or None,
                config=core.Config(
                    s3={"addressing_style": "path" if settings.path_style else "auto"},
                    retries={"max_attempts": ATTEMPTS, "mode": "standard"},
                    connect_timeout=CONNECT_S,
                    read_timeout=READ_S,
                    # Not every store knows the newer checksums; what was stored is read back in any case.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (self._errors.BotoCoreError, ValueError) as error:
            raise ConfigError(f"snapshots.s3: no client can be made of it ({type(error).__name__})") from None

    @property
    def label(self) -> str:
        """See Target."""
        return f"s3://{self._bucket}/{self._prefix}".removesuffix("/")

    def stored(self, cluster_id: str) -> list[Stored]:
        """See Target."""

        def listed() -> list[dict[str, Any]]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return [entry for page in pages for entry in page.get("Contents", ())]

        found = self._told("list", listed)
        names = ((str(entry["Key"]).removeprefix(self._prefix), int(entry["Size"])) for entry in found)
        return newest_first([read_name(name, size, cluster_id) for name, size in names])

    def store(self, file: Path, name: str, sha256: bytes) -> None:
        """See Target. What does not come back as it was put there is removed."""
        key = self._prefix + name
        self._told("upload", lambda: self._client.upload_file(str(file), self._bucket, key, Config=self._parts))
        if self._told("read back", lambda: self._hash(key)) != sha256:
            self.remove(name)
            raise Unavailable(f"{self.label} does not give back what was put there")

    def _hash(self, key: str) -> bytes:
        digest = hashlib.sha256()
        body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        try:
            while data := body.read(READ_BYTES):
                digest.update(data)
        finally:
            body.close()
        return digest.digest()

    def remove(self, name: str) -> None:
        """See Target."""
        self._told("remove", lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name))

    def _told(self, what: str, act: Callable[[], T]) -> T:
        """Act, with errors that quote nothing."""
        try:
            return act()
        except self._errors.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            raise Unavailable(f"{self.label}: {what} was refused ({code[:64]})") from None
        except Exception as error:  # noqa: BLE001 - botocore, s3transfer, urllib3 and the OS each have a tree of their own
            raise Unavailable(f"{self.label}: {what} failed ({type(error).__name__})") from None
