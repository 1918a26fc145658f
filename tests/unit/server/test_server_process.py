"""What strangers' connections can take of a node's open files."""

import asyncio
import contextlib
import resource
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from holdfast.server import limits
from holdfast.server.certs import create_ca, issue_node

LOWERED = """
import resource
from holdfast.server.process import harden
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, min(most, 4096) if most > 0 else 4096))
harden()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_node_opens_as_many_files_as_it_may() -> None:
    printed = subprocess.run([sys.executable, "-c", LOWERED], capture_output=True, text=True, check=True).stdout
    files, files_max = printed.split()
    assert files == files_max != "256"


def test_the_client_port_leaves_half_of_the_files_to_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, expected in ((1024, 512), (20_000, 4096), (resource.RLIM_INFINITY, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert dict(limits.grpc_options())["grpc.max_allowed_incoming_connections"] == expected


def test_connections_above_the_limit_are_closed_and_the_place_of_one_that_ends_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 3)
    tmp_path.chmod(0o700)
    create_ca(tmp_path, "test")
    files = issue_node(tmp_path, "node-1", [], ["127.0.0.1"])

    async def closed(reader: asyncio.StreamReader) -> bool:
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.3):
                return await reader.read(1) == b""
            return True
        return False

    async def main() -> None:
        server = grpc.aio.server(options=limits.grpc_options())
        pair = (files.key_file.read_bytes(), files.cert_file.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        await server.start()
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert not any(await asyncio.gather(*(closed(reader) for reader, _ in opened)))
        extra, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            assert await extra.read(1) == b""
        writer.close()
        opened[0][1].close()
        async with asyncio.timeout(30):
            while await closed((again := await asyncio.open_connection("127.0.0.1", port))[0]):
                again[1].close()
        for _, ended in (*opened, again):
            ended.close()
        await server.stop(None)

    asyncio.run(main())
