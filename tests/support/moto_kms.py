"""AWS KMS as moto's server speaks it, in a process of its own, and ways to lose it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError
from support.partition import CuttableRelay

from holdfast.client.local import LOOPBACK, free_ports

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
REGION = "eu-central-1"


@dataclass
class MotoKms:
    """endpoint: where it is to be asked; behind a relay, so that it can be cut off. client: speaks to it directly."""

    process: subprocess.Popen[bytes]
    relay: CuttableRelay
    client: Any = field(repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.relay.port}"

    def make_key(self) -> str:
        return str(self.client.create_key()["KeyMetadata"]["KeyId"])

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def moto_kms() -> Iterator[MotoKms]:
    """A running server, ended at the end."""
    (port,) = free_ports(1)
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", LOOPBACK, "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    relay = CuttableRelay(port)
    try:
        client = boto3.session.Session().client(
            "kms", endpoint_url=f"http://{LOOPBACK}:{port}", region_name=REGION,
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            try:
                client.list_keys()
                break
            except BotoCoreError:
                assert process.poll() is None, "moto's server ended"
                assert time.monotonic() < end, "moto's server does not answer"
                time.sleep(0.1)
        yield MotoKms(process, relay, client)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)
        relay.close()
