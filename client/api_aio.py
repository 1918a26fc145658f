"""What the asyncio client offers: `api.py` with `await`. The docstrings are those of the blocking methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from holdfast.client import api
from holdfast.client.api import Results
from holdfast.client.calls import autopilot, kv, logical, raft, replica, sys
from holdfast.client.calls.call import Call
from holdfast.client.results import (
    AutopilotConfiguration,
    AutopilotState,
    ClusterUnseal,
    Health,
    InitResult,
    KvMetadata,
    KvSecret,
    KvVersion,
    Leader,
    LogicalResponse,
    PeerList,
    ReplicaState,
    SealStatus,
)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class RunAsync(Protocol):
    """Makes a call and awaits its result."""

    async def __call__(self, call: Call[T], /) -> T: ...


def documented_as(blocking: Callable[..., Any]) -> Callable[[F], F]:
    """Gives a method the docstring of its blocking twin."""

    def decorate(method: F) -> F:
        method.__doc__ = blocking.__doc__
        return method

    return decorate


class AsyncKv:
    """`Kv` of the blocking client, to be awaited."""

    def __init__(self, run: RunAsync) -> None:
        self._run = run

    @documented_as(api.Kv.put)
    async def put(
        self, path: str, data: Mapping[str, Any], *, cas: int | None = None, mount: str = "secret"
    ) -> KvVersion:
        return await self._run(kv.put(mount, path, data, cas))

    @documented_as(api.Kv.patch)
    async def patch(
        self, path: str, data: Mapping[str, Any], *, cas: int | None = None, mount: str = "secret"
    ) -> KvVersion:
        return await self._run(kv.patch(mount, path, data, cas))

    @documented_as(api.Kv.get)
    async def get(self, path: str, *, version: int = 0, stale: bool = False, mount: str = "secret") -> KvSecret:
        return await self._run(kv.get(mount, path, version, stale=stale))

    @documented_as(api.Kv.get_many)
    async def get_many(
        self, paths: Iterable[str | tuple[str, int]], *, stale: bool = False, mount: str = "secret"
    ) -> Results:
        return [result for call in kv.get_many(mount, paths, stale=stale) for result in await self._run(call)]

    @documented_as(api.Kv.list)
    async def list(
        self, path: str = "", *, page_size: int = 0, stale: bool = False, mount: str = "secret"
    ) -> AsyncIterator[str]:
        token = ""
        while True:
            page = await self._run(kv.list_page(mount, path, page_size, token, stale=stale))
            for key in page.keys:
                yield key
            if not (token := page.next_page_token):
                return

    @documented_as(api.Kv.delete)
    async def delete(self, path: str, versions: Sequence[int] = (), *, mount: str = "secret") -> None:
        await self._run(kv.delete(mount, path, versions))

    @documented_as(api.Kv.undelete)
    async def undelete(self, path: str, versions: Sequence[int], *, mount: str = "secret") -> None:
        await self._run(kv.undelete(mount, path, versions))

    @documented_as(api.Kv.destroy)
    async def destroy(self, path: str, versions: Sequence[int], *, mount: str = "secret") -> None:
        await self._run(kv.destroy(mount, path, versions))

    @documented_as(api.Kv.get_metadata)
    async def get_metadata(self, path: str, *, stale: bool = False, mount: str = "secret") -> KvMetadata:
        return await self._run(kv.read_metadata(mount, path, stale=stale))

    @documented_as(api.Kv.put_metadata)
    async def put_metadata(
        self,
        path: str,
        *,
        max_versions: int | None = None,
        cas_required: bool | None = None,
        delete_version_after: timedelta | None = None,
        custom_metadata: Mapping[str, str] | None = None,
        mount: str = "secret",
    ) -> None:
        call = kv.write_metadata(
            mount,
            path,
            max_versions=max_versions,
            cas_required=cas_required,
            delete_version_after=delete_version_after,
            custom_metadata=custom_metadata,
        )
        await self._run(call)

    @documented_as(api.Kv.delete_metadata)
    async def delete_metadata(self, path: str, *, mount: str = "secret") -> None:
        await self._run(kv.delete_metadata(mount, path))


class AsyncSys:
    """`Sys` of the blocking client, to be awaited."""

    def __init__(self, run: RunAsync) -> None:
        self._run = run

    @documented_as(api.Sys.init)
    async def init(self, *, shares: int = 0, threshold: int = 0) -> InitResult:
        return await self._run(sys.init(shares, threshold))

    @documented_as(api.Sys.seal_status)
    async def seal_status(self) -> SealStatus:
        return await self._run(sys.seal_status())

    @documented_as(api.Sys.unseal)
    async def unseal(self, share: str = "", *, reset: bool = False) -> SealStatus:
        return await self._run(sys.unseal(share, reset=reset))

    @documented_as(api.Sys.unseal_cluster)
    async def unseal_cluster(self, share: str) -> ClusterUnseal:
        return await self._run(sys.unseal_cluster(share))

    @documented_as(api.Sys.seal)
    async def seal(self) -> None:
        await self._run(sys.seal())

    @documented_as(api.Sys.health)
    async def health(self) -> Health:
        return await self._run(sys.health())

    @documented_as(api.Sys.leader)
    async def leader(self) -> Leader:
        return await self._run(sys.leader())

    @documented_as(api.Sys.step_down)
    async def step_down(self) -> str:
        return await self._run(sys.step_down())


class AsyncRaft:
    """`Raft` of the blocking client, to be awaited."""

    def __init__(self, run: RunAsync) -> None:
        self._run = run

    @documented_as(api.Raft.join)
    async def join(self, node_id: str, *, cluster_address: str, api_address: str) -> int:
        return await self._run(raft.join(node_id, cluster_address, api_address))

    @documented_as(api.Raft.list_peers)
    async def list_peers(self) -> PeerList:
        return await self._run(raft.list_peers())

    @documented_as(api.Raft.remove_peer)
    async def remove_peer(self, node_id: str) -> int:
        return await self._run(raft.remove_peer(node_id))

    @documented_as(api.Raft.replica_state)
    async def replica_state(self) -> ReplicaState:
        return await self._run(replica.state())

    @documented_as(api.Raft.autopilot_state)
    async def autopilot_state(self) -> AutopilotState:
        return await self._run(autopilot.state())

    @documented_as(api.Raft.autopilot_config)
    async def autopilot_config(self) -> AutopilotConfiguration:
        return await self._run(autopilot.get_configuration())

    @documented_as(api.Raft.set_autopilot_config)
    async def set_autopilot_config(
        self,
        *,
        cleanup_dead_servers: bool | None = None,
        dead_server_last_contact_threshold: timedelta | None = None,
        min_quorum: int | None = None,
        server_stabilization_time: timedelta | None = None,
        last_contact_threshold: timedelta | None = None,
        max_trailing_logs: int | None = None,
    ) -> AutopilotConfiguration:
        return await self._run(
            autopilot.set_configuration(
                cleanup_dead_servers=cleanup_dead_servers,
                dead_server_last_contact_threshold=dead_server_last_contact_threshold,
                min_quorum=min_quorum,
                server_stabilization_time=server_stabilization_time,
                last_contact_threshold=last_contact_threshold,
                max_trailing_logs=max_trailing_logs,
            )
        )


class AsyncLogical:
    """`Logical` of the blocking client, to be awaited."""

    def __init__(self, run: RunAsync) -> None:
        self._run = run

    @documented_as(api.Logical.read)
    async def read(self, path: str, data: Mapping[str, Any] | None = None, *, stale: bool = False) -> LogicalResponse:
        return await self._run(logical.read(path, data, stale=stale))

    @documented_as(api.Logical.list)
    async def list(self, path: str, data: Mapping[str, Any] | None = None, *, stale: bool = False) -> LogicalResponse:
        return await self._run(logical.list_(path, data, stale=stale))

    @documented_as(api.Logical.write)
    async def write(self, path: str, data: Mapping[str, Any] | None = None) -> LogicalResponse:
        return await self._run(logical.write(path, data))

    @documented_as(api.Logical.patch)
    async def patch(self, path: str, data: Mapping[str, Any] | None = None) -> LogicalResponse:
        return await self._run(logical.patch(path, data))

    @documented_as(api.Logical.delete)
    async def delete(self, path: str, data: Mapping[str, Any] | None = None) -> LogicalResponse:
        return await self._run(logical.delete(path, data))
