"""holdfast.v1.KvService: the typed face of the KV engine. Each method is one request to core in Vault's form."""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from holdfast.cluster.raft.consensus import Consensus
from holdfast.core.request import Consistency, Operation, Request, Response
from holdfast.proto.errors import Fatal, HoldfastError, InvalidArgument, NotFound
from holdfast.proto.v1 import kv_pb2 as pb
from holdfast.proto.v1.kv_pb2_grpc import KvServiceServicer
from holdfast.server import kv_messages
from holdfast.server.frontend import FrontEnd, rpc
from holdfast.server.jsondata import parse_object
from holdfast.server.limits import BATCH_GET_MAX
from holdfast.server.logical_service import request_of
from holdfast.server.metadata import Call
from holdfast.server.validation import (
    check_folder,
    check_mount,
    check_page_size,
    check_path,
    check_versions,
    decode_page_token,
    encode_page_token,
)

CAS_MAX = 2**63 - 1


class KvService(KvServiceServicer):
    """Translates messages to requests, and responses to messages."""

    def __init__(
        self, front_end: FrontEnd, handle: Callable[[Request], Awaitable[Response]], consensus: Consensus
    ) -> None:
        self.front_end = front_end
        self._handle = handle
        self._consensus = consensus

    @rpc
    async def Put(self, message: pb.PutRequest, call: Call) -> pb.PutResponse:
        fields = await self._write(message, call, Operation.UPDATE)
        return pb.PutResponse(metadata=kv_messages.version_metadata(fields))

    @rpc
    async def Patch(self, message: pb.PatchRequest, call: Call) -> pb.PatchResponse:
        fields = await self._write(message, call, Operation.PATCH)
        return pb.PatchResponse(metadata=kv_messages.version_metadata(fields))

    async def _write(
        self, message: pb.PutRequest | pb.PatchRequest, call: Call, operation: Operation
    ) -> dict[str, Any]:
        path = _path(message.mount, "data", message.path)
        data: dict[str, Any] = {"data": parse_object(message.data)}
        if message.HasField("cas"):
            if message.cas > CAS_MAX:
                raise InvalidArgument("cas is not a version", field="cas")
            data["options"] = {"cas": message.cas}
        try:
            return _members(await self._handle(request_of(call, operation, path, data)))
        except InvalidArgument as error:
            if error.field == "options.cas":  # the engine's name of what is `cas` in the message
                error.field = "cas"
            raise

    @rpc
    async def Get(self, message: pb.GetRequest, call: Call) -> pb.GetResponse:
        return await self._read(message, call)

    @rpc
    async def BatchGet(self, message: pb.BatchGetRequest, call: Call) -> pb.BatchGetResponse:
        if len(message.requests) > BATCH_GET_MAX:
            raise InvalidArgument(
                f"requests has {len(message.requests)} members; at most {BATCH_GET_MAX} are allowed", field="requests"
            )
        if call.consistency is Consistency.LINEARIZABLE and message.requests:
            # One barrier makes the local state current for all of the reads that follow it.
            await self._consensus.read_barrier(timeout_s=call.timeout_s)
            call = msgspec.structs.replace(call, consistency=Consistency.STALE)
        results = await asyncio.gather(*(self._read_item(item, call) for item in message.requests))
        return pb.BatchGetResponse(results=results)

    async def _read_item(self, message: pb.GetRequest, call: Call) -> pb.BatchGetResponse.Result:
        try:
            return pb.BatchGetResponse.Result(secret=await self._read(message, call))
        except Fatal:
            raise
        except HoldfastError as error:
            failure = pb.BatchGetResponse.Failure(reason=error.reason, message=error.message)
            return pb.BatchGetResponse.Result(error=failure)

    async def _read(self, message: pb.GetRequest, call: Call) -> pb.GetResponse:
        path = _path(message.mount, "data", message.path)
        data: dict[str, Any] = {"version": check_versions([message.version])[0]} if message.version else {}
        return kv_messages.secret(_members(await self._handle(request_of(call, Operation.READ, path, data))))

    @rpc
    async def List(self, message: pb.ListRequest, call: Call) -> pb.ListResponse:
        folder = check_folder(message.path)
        path = f"{check_mount(message.mount)}/metadata/{folder}".removesuffix("/")
        page_size = check_page_size(message.page_size)
        data: dict[str, Any] = {"limit": page_size}
        after = decode_page_token(message.page_token)
        if after:
            data["after"] = after
        keys: list[str] = _members(await self._handle(request_of(call, Operation.LIST, path, data)))["keys"]
        more = len(keys) >= page_size and await self._any_after(keys[-1], path, call)
        return pb.ListResponse(keys=keys, next_page_token=encode_page_token(keys[-1]) if more else "")

    async def _any_after(self, name: str, path: str, call: Call) -> bool:
        """Whether a full page was not the last one. The local state is current: the page itself saw to that."""
        local = msgspec.structs.replace(call, consistency=Consistency.STALE)
        request = request_of(local, Operation.LIST, path, {"limit": 1, "after": name})
        return bool(_members(await self._handle(request))["keys"])

    @rpc
    async def Delete(self, message: pb.DeleteRequest, call: Call) -> pb.DeleteResponse:
        versions = check_versions(message.versions, empty_ok=True)
        if versions:
            path = _path(message.mount, "delete", message.path)
            await self._handle(request_of(call, Operation.UPDATE, path, {"versions": versions}))
        else:
            await self._handle(request_of(call, Operation.DELETE, _path(message.mount, "data", message.path)))
        return pb.DeleteResponse()

    @rpc
    async def Undelete(self, message: pb.UndeleteRequest, call: Call) -> pb.UndeleteResponse:
        path = _path(message.mount, "undelete", message.path)
        await self._handle(request_of(call, Operation.UPDATE, path, {"versions": check_versions(message.versions)}))
        return pb.UndeleteResponse()

    @rpc
    async def Destroy(self, message: pb.DestroyRequest, call: Call) -> pb.DestroyResponse:
        path = _path(message.mount, "destroy", message.path)
        await self._handle(request_of(call, Operation.UPDATE, path, {"versions": check_versions(message.versions)}))
        return pb.DestroyResponse()

    @rpc
    async def ReadMetadata(self, message: pb.ReadMetadataRequest, call: Call) -> pb.ReadMetadataResponse:
        path = _path(message.mount, "metadata", message.path)
        return kv_messages.metadata(_members(await self._handle(request_of(call, Operation.READ, path))))

    @rpc
    async def WriteMetadata(self, message: pb.WriteMetadataRequest, call: Call) -> pb.WriteMetadataResponse:
        if message.custom_metadata and not message.set_custom_metadata:
            raise InvalidArgument(
                "set_custom_metadata must be true for custom_metadata to be written", field="set_custom_metadata"
            )
        after = message.delete_version_after
        if after.seconds < 0 or after.nanos:
            raise InvalidArgument("delete_version_after must be whole seconds, 0 or more", field="delete_version_after")
        path = _path(message.mount, "metadata", message.path)
        await self._handle(request_of(call, Operation.UPDATE, path, kv_messages.metadata_fields(message)))
        return pb.WriteMetadataResponse()

    @rpc
    async def DeleteMetadata(self, message: pb.DeleteMetadataRequest, call: Call) -> pb.DeleteMetadataResponse:
        await self._handle(request_of(call, Operation.DELETE, _path(message.mount, "metadata", message.path)))
        return pb.DeleteMetadataResponse()


def _path(mount: str, kind: str, path: str) -> str:
    """The logical path of a secret; `kind` is the engine's folder, such as "data"."""
    return f"{check_mount(mount)}/{kind}/{check_path(path)}"


def _members(response: Response) -> dict[str, Any]:
    if response.data is None:
        raise NotFound("nothing is stored at this path")
    return response.data
