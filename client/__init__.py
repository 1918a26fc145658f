"""The Python SDK and the `holdfast` command. Imports `holdfast.proto` only.

from holdfast.client import Client

with Client() as client:
    client.kv.put("myapp/db", {"username": "admin"})
"""

import os

# gRPC writes lines of its own to standard error; what matters of them is in the errors told by the client. It reads
# this when it is imported, and never again.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from holdfast.client.aio import AsyncClient
from holdfast.client.config import ClientConfig
from holdfast.client.failures import LocalError, TlsFailed
from holdfast.client.sync import Client
from holdfast.proto import errors

__all__ = ["AsyncClient", "Client", "ClientConfig", "LocalError", "TlsFailed", "errors"]
