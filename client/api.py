"""What the blocking client offers, in four groups. Each method builds a call (`calls/`) and has the client run it.

Any method may raise: Unauthenticated (no valid token), PermissionDenied, InvalidArgument (see `.field`; `LocalError`
when it was noticed on this side), Unavailable and its kinds Sealed, Uninitialized and NoLeader (after the retries that
the settings allow), Overloaded, and, for what changes something, OutcomeUnknown. Docstrings name what else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

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
from holdfast.proto.errors import HoldfastError

T = TypeVar("T")
Results = list[KvSecret | HoldfastError]
"""What `get_many` returns."""


class Run(Protocol):
    """Makes a call and waits for its result."""

    def __call__(self, call: Call[T], /) -> T: ...


class Kv:
    """Versioned secrets (the meanings of Vault's KV version 2).

    Each method takes the path below `mount`, the engine's mount. Reads are linearizable on every node; with
    `stale=True` they may lag and need no quorum. Writes take effect once, however often they are retried.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def put(self, path: str, data: Mapping[str, Any], *, cas: int | None = None, mount: str = "secret") -> KvVersion:
        """Write a new version and return what it became. `data` is a JSON object, at most 1 MiB in UTF-8.

        cas: the version that must be the current one; 0 when the secret must not exist yet. None asks for nothing.
        Raises Conflict when `cas` does not match.

            client.kv.put("myapp/db", {"username": "admin", "port": 5432}, cas=0)
        """
        return self._run(kv.put(mount, path, data, cas))

    def patch(self, path: str, data: Mapping[str, Any], *, cas: int | None = None, mount: str = "secret") -> KvVersion:
        """Apply a JSON merge patch (RFC 7396) to the current version; None removes a member.

        Raises NotFound when there is no current version, Conflict when `cas` does not match.

            client.kv.patch("myapp/db", {"port": 5433, "old_member": None})
        """
        return self._run(kv.patch(mount, path, data, cas))

    def get(self, path: str, *, version: int = 0, stale: bool = False, mount: str = "secret") -> KvSecret:
        """Read a version; 0 means the current one. `data` is None when it is deleted or destroyed.

        Raises NotFound when nothing was ever written there, or the version is not kept any more.

            password = client.kv.get("myapp/db").data["password"]
        """
        return self._run(kv.get(mount, path, version, stale=stale))

    def get_many(
        self, paths: Iterable[str | tuple[str, int]], *, stale: bool = False, mount: str = "secret"
    ) -> Results:
        """Read many secrets in few calls, each a path or a (path, version). The results are in the order of `paths`;
        one that cannot be read is its error, returned and not raised.

            db, cache = client.kv.get_many(["myapp/db", ("myapp/cache", 3)])
        """
        return [result for call in kv.get_many(mount, paths, stale=stale) for result in self._run(call)]

    def list(self, path: str = "", *, page_size: int = 0, stale: bool = False, mount: str = "secret") -> Iterator[str]:
        """The names directly below `path`, fetched page by page; a name ending in "/" has names below it.

        Not in alphabetical order, because names are encrypted on disk. page_size: 0 means 1,000.

            names = sorted(client.kv.list("myapp"))
        """
        token = ""
        while True:
            page = self._run(kv.list_page(mount, path, page_size, token, stale=stale))
            yield from page.keys
            if not (token := page.next_page_token):
                return

    def delete(self, path: str, versions: Sequence[int] = (), *, mount: str = "secret") -> None:
        """Delete versions, by default the current one. `undelete` brings them back.

        client.kv.delete("myapp/db", [3, 4])
        """
        self._run(kv.delete(mount, path, versions))

    def undelete(self, path: str, versions: Sequence[int], *, mount: str = "secret") -> None:
        """Bring deleted versions back.

        client.kv.undelete("myapp/db", [3])
        """
        self._run(kv.undelete(mount, path, versions))

    def destroy(self, path: str, versions: Sequence[int], *, mount: str = "secret") -> None:
        """Remove the data of versions for good.

        client.kv.destroy("myapp/db", [1, 2])
        """
        self._run(kv.destroy(mount, path, versions))

    def get_metadata(self, path: str, *, stale: bool = False, mount: str = "secret") -> KvMetadata:
        """Read all that is known about a secret except its data. Raises NotFound when nothing was ever written there.

        print(client.kv.get_metadata("myapp/db").current_version)
        """
        return self._run(kv.read_metadata(mount, path, stale=stale))

    def put_metadata(
        self,
        path: str,
        *,
        max_versions: int | None = None,
        cas_required: bool | None = None,
        delete_version_after: timedelta | None = None,
        custom_metadata: Mapping[str, str] | None = None,
        mount: str = "secret",
    ) -> None:
        """Change how a secret is kept; what is None stays as it is.

        max_versions: how many versions are kept; 0 means the default of 10. cas_required: refuse puts without `cas`.
        delete_version_after: new versions are deleted when they are that old; 0 for never.
        custom_metadata: replaces the whole map; at most 64 keys of 128 bytes with values of 512 bytes.

            client.kv.put_metadata("myapp/db", max_versions=20, custom_metadata={"owner": "payments"})
        """
        call = kv.write_metadata(
            mount,
            path,
            max_versions=max_versions,
            cas_required=cas_required,
            delete_version_after=delete_version_after,
            custom_metadata=custom_metadata,
        )
        self._run(call)

    def delete_metadata(self, path: str, *, mount: str = "secret") -> None:
        """Remove a secret whole: all versions and their metadata, for good.

        client.kv.delete_metadata("myapp/db")
        """
        self._run(kv.delete_metadata(mount, path))


class Sys:
    """Keys, seal and health. `seal_status`, `unseal`, `seal` and `health` concern the first address and go nowhere
    else; to reach another node, make a client for it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def init(self, *, shares: int = 0, threshold: int = 0) -> InitResult:
        """Make the cluster's keys, once in its life. The answer is the only copy of the shares and the root token.

        shares: 1 to 255; 0 means 5. threshold: how many of them unseal a node; 0 means 3, or all where there are fewer.
        Raises AlreadyInitialized.

            made = client.sys.init(shares=5, threshold=3)
            client.token = made.root_token
        """
        return self._run(sys.init(shares, threshold))

    def seal_status(self) -> SealStatus:
        """Whether the node has its keys. Needs no token.

        sealed = client.sys.seal_status().sealed
        """
        return self._run(sys.seal_status())

    def unseal(self, share: str = "", *, reset: bool = False) -> SealStatus:
        """Give the node one share; with `reset`, make it forget those given so far instead. Needs no token.

        Raises ShareRejected for a share that is mistyped, repeated or of another set; Uninitialized.

            for share in shares[:3]:
                status = client.sys.unseal(share)
        """
        return self._run(sys.unseal(share, reset=reset))

    def unseal_cluster(self, share: str) -> ClusterUnseal:
        """Give the node one share for all nodes. The share that reaches the threshold unseals this node, and has it
        hand the root key to every other member; `members` tells of each. Needs no token. Every share of the ceremony is
        to be given this way. A node that is unsealed takes them too, to unseal the others.

        Raises as `unseal`.

            for share in shares[:3]:
                ceremony = client.sys.unseal_cluster(share)
        """
        return self._run(sys.unseal_cluster(share))

    def seal(self) -> None:
        """Make the node drop its keys. It goes on voting and replicating, and serves nothing until it is unsealed.

        client.sys.seal()
        """
        self._run(sys.seal())

    def health(self) -> Health:
        """What the node can do now. Needs no token.

        if client.sys.health().state is HealthState.ACTIVE: ...
        """
        return self._run(sys.health())

    def leader(self) -> Leader:
        """Who leads the cluster. Needs no token.

        address = client.sys.leader().leader_address
        """
        return self._run(sys.leader())

    def step_down(self) -> str:
        """Make the leader hand over to another node; the id of that node.

        next_leader = client.sys.step_down()
        """
        return self._run(sys.step_down())


class Raft:
    """The cluster's members. Every call but `replica_state` needs a token with `sudo`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def join(self, node_id: str, *, cluster_address: str, api_address: str) -> int:
        """Add a node, first as a learner, then, once it has caught up, as a voter; the log index of the change.

        client.raft.join("node-4", cluster_address="10.0.0.4:8201", api_address="10.0.0.4:8200")
        """
        return self._run(raft.join(node_id, cluster_address, api_address))

    def list_peers(self) -> PeerList:
        """The members as the leader sees them.

        leader = next(peer for peer in client.raft.list_peers().peers if peer.leader)
        """
        return self._run(raft.list_peers())

    def remove_peer(self, node_id: str) -> int:
        """Remove a node for good; the log index of the change. Raises NotFound when there is no such node.

        client.raft.remove_peer("node-4")
        """
        return self._run(raft.remove_peer(node_id))

    def replica_state(self) -> ReplicaState:
        """What the state of the node of the first address amounts to. Needs no token.

        digest = client.raft.replica_state().state_digest
        """
        return self._run(replica.state())

    def autopilot_state(self) -> AutopilotState:
        """The members' health, as the leader sees it.

        tolerance = client.raft.autopilot_state().failure_tolerance
        """
        return self._run(autopilot.state())

    def autopilot_config(self) -> AutopilotConfiguration:
        """What autopilot may do.

        config = client.raft.autopilot_config()
        """
        return self._run(autopilot.get_configuration())

    def set_autopilot_config(
        self,
        *,
        cleanup_dead_servers: bool | None = None,
        dead_server_last_contact_threshold: timedelta | None = None,
        min_quorum: int | None = None,
        server_stabilization_time: timedelta | None = None,
        last_contact_threshold: timedelta | None = None,
        max_trailing_logs: int | None = None,
    ) -> AutopilotConfiguration:
        """Change what is given and leave the rest. Raises InvalidArgument.

        client.raft.set_autopilot_config(cleanup_dead_servers=True, min_quorum=3)
        """
        return self._run(
            autopilot.set_configuration(
                cleanup_dead_servers=cleanup_dead_servers,
                dead_server_last_contact_threshold=dead_server_last_contact_threshold,
                min_quorum=min_quorum,
                server_stabilization_time=server_stabilization_time,
                last_contact_threshold=last_contact_threshold,
                max_trailing_logs=max_trailing_logs,
            )
        )


class Logical:
    """Any engine by path, as Vault's HTTP API has it: `secret/data/myapp/db`, `auth/token/lookup-self`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def read(self, path: str, data: Mapping[str, Any] | None = None, *, stale: bool = False) -> LogicalResponse:
        """Read a path. `data`: the operation's parameters. Raises NotFound.

        policies = client.logical.read("auth/token/lookup-self").data["policies"]
        """
        return self._run(logical.read(path, data, stale=stale))

    def list(self, path: str, data: Mapping[str, Any] | None = None, *, stale: bool = False) -> LogicalResponse:
        """List the names below a path, in `data["keys"]`.

        names = client.logical.list("secret/metadata/myapp").data["keys"]
        """
        return self._run(logical.list_(path, data, stale=stale))

    def write(self, path: str, data: Mapping[str, Any] | None = None) -> LogicalResponse:
        """Create or update a path. Takes effect once, however often it is retried.

        client.logical.write("secret/data/myapp/db", {"data": {"username": "admin"}})
        """
        return self._run(logical.write(path, data))

    def patch(self, path: str, data: Mapping[str, Any] | None = None) -> LogicalResponse:
        """Change a part of what a path holds.

        client.logical.patch("secret/data/myapp/db", {"data": {"port": 5433}})
        """
        return self._run(logical.patch(path, data))

    def delete(self, path: str, data: Mapping[str, Any] | None = None) -> LogicalResponse:
        """Delete a path.

        client.logical.delete("secret/data/myapp/db")
        """
        return self._run(logical.delete(path, data))
