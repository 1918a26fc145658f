"""The calls of KvService: versioned secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from holdfast.client.calls.call import Call, counted, decode_object, encode_object, moment, text
from holdfast.client.failures import LocalError
from holdfast.client.results import KeyPage, KvMetadata, KvSecret, KvVersion
from holdfast.client.retry import Effect
from holdfast.proto import errors
from holdfast.proto.v1 import kv_pb2 as pb

BATCH_SIZE_MAX = 100
"""How many secrets one BatchGet reads."""

_SERVICE = "/holdfast.v1.KvService/"


def put(mount: str, path: str, data: Mapping[str, Any], cas: int | None) -> Call[KvVersion]:
    """Writes a new version."""
    request = pb.PutRequest(**_where(mount, path), data=encode_object(data), cas=counted(cas, name="cas"))
    return Call(_SERVICE + "Put", request, pb.PutResponse, _written, Effect.WRITE)


def patch(mount: str, path: str, data: Mapping[str, Any], cas: int | None) -> Call[KvVersion]:
    """Applies a JSON merge patch to the current version."""
    request = pb.PatchRequest(**_where(mount, path), data=encode_object(data), cas=counted(cas, name="cas"))
    return Call(_SERVICE + "Patch", request, pb.PatchResponse, _written, Effect.WRITE)


def get(mount: str, path: str, version: int, *, stale: bool) -> Call[KvSecret]:
    """Reads a version; 0 means the current one."""
    request = pb.GetRequest(**_where(mount, path), version=counted(version, name="version") or 0)
    return Call(_SERVICE + "Get", request, pb.GetResponse, _secret, Effect.READ, stale=stale)


def get_many(
    mount: str, paths: Iterable[str | tuple[str, int]], *, stale: bool
) -> list[Call[list[KvSecret | errors.HoldfastError]]]:
    """Reads many secrets, in as many calls as their number needs."""
    requests = []
    for item in paths:
        path, version = (item, 0) if isinstance(item, str) else item
        requests.append(pb.GetRequest(**_where(mount, path), version=counted(version, name="version") or 0))
    return [
        Call(
            _SERVICE + "BatchGet",
            pb.BatchGetRequest(requests=requests[start : start + BATCH_SIZE_MAX]),
            pb.BatchGetResponse,
            _results,
            Effect.READ,
            stale=stale,
        )
        for start in range(0, len(requests), BATCH_SIZE_MAX)
    ]


def list_page(mount: str, path: str, page_size: int, page_token: str, *, stale: bool) -> Call[KeyPage]:
    """One page of the names directly below a path."""
    request = pb.ListRequest(
        **_where(mount, path), page_size=counted(page_size, name="page_size", bits=32) or 0, page_token=page_token
    )
    return Call(_SERVICE + "List", request, pb.ListResponse, _page, Effect.READ, stale=stale)


def delete(mount: str, path: str, versions: Sequence[int]) -> Call[None]:
    """Soft-deletes versions; none means the current one."""
    request = pb.DeleteRequest(**_where(mount, path), versions=_versions(versions))
    return Call(_SERVICE + "Delete", request, pb.DeleteResponse, _nothing, Effect.WRITE)


def undelete(mount: str, path: str, versions: Sequence[int]) -> Call[None]:
    """Brings soft-deleted versions back."""
    request = pb.UndeleteRequest(**_where(mount, path), versions=_some_versions(versions))
    return Call(_SERVICE + "Undelete", request, pb.UndeleteResponse, _nothing, Effect.WRITE)


def destroy(mount: str, path: str, versions: Sequence[int]) -> Call[None]:
    """Removes the data of versions for good."""
    request = pb.DestroyRequest(**_where(mount, path), versions=_some_versions(versions))
    return Call(_SERVICE + "Destroy", request, pb.DestroyResponse, _nothing, Effect.WRITE)


def read_metadata(mount: str, path: str, *, stale: bool) -> Call[KvMetadata]:
    """Reads what is known about a secret except its data."""
    request = pb.ReadMetadataRequest(**_where(mount, path))
    return Call(
        _SERVICE + "ReadMetadata", request, pb.ReadMetadataResponse, _metadata, Effect.READ, stale=stale
    )  # fmt: skip


def write_metadata(
    mount: str,
    path: str,
    *,
    max_versions: int | None,
    cas_required: bool | None,
    delete_version_after: timedelta | None,
    custom_metadata: Mapping[str, str] | None,
) -> Call[None]:
    """Changes what is not None; `custom_metadata` replaces the whole map."""
    after: Duration | None = None
    if delete_version_after is not None:
        if delete_version_after < timedelta(0):
            raise LocalError("delete_version_after must not be negative.", field="delete_version_after")
        after = Duration()
        after.FromTimedelta(delete_version_after)
    request = pb.WriteMetadataRequest(
        **_where(mount, path),
        max_versions=counted(max_versions, name="max_versions", bits=32),
        cas_required=cas_required,
        delete_version_after=after,
        custom_metadata={
            text(key, name="custom_metadata"): text(value, name="custom_metadata")
            for key, value in (custom_metadata or {}).items()
        },
        set_custom_metadata=custom_metadata is not None,
    )
    return Call(_SERVICE + "WriteMetadata", request, pb.WriteMetadataResponse, _nothing, Effect.WRITE)


def delete_metadata(mount: str, path: str) -> Call[None]:
    """Removes a secret whole."""
    request = pb.DeleteMetadataRequest(**_where(mount, path))
    return Call(_SERVICE + "DeleteMetadata", request, pb.DeleteMetadataResponse, _nothing, Effect.WRITE)


def _where(mount: str, path: str) -> dict[str, str]:
    return {"mount": text(mount, name="mount").strip("/"), "path": text(path, name="path").strip("/")}


def _versions(versions: Sequence[int]) -> list[int]:
    checked = [counted(version, name="versions") for version in versions]
    if 0 in checked or None in checked:
        raise LocalError("versions count from 1.", field="versions")
    return [version for version in checked if version]


def _some_versions(versions: Sequence[int]) -> list[int]:
    if not versions:
        raise LocalError("say which versions are meant.", field="versions")
    return _versions(versions)


def _version(message: pb.VersionMetadata) -> KvVersion:
    return KvVersion(
        message.version, moment(message, "created_time"), moment(message, "deletion_time"), message.destroyed
    )


def _written(response: pb.PutResponse | pb.PatchResponse) -> KvVersion:
    return _version(response.metadata)


def _secret(response: pb.GetResponse) -> KvSecret:
    version = _version(response.metadata)
    return KvSecret(
        version=version.version,
        created_time=version.created_time,
        deletion_time=version.deletion_time,
        destroyed=version.destroyed,
        custom_metadata=dict(response.custom_metadata),
        data=decode_object(response.data),
    )


def _results(response: pb.BatchGetResponse) -> list[KvSecret | errors.HoldfastError]:
    return [
        errors.from_wire(result.error.reason, result.error.message)
        if result.WhichOneof("result") == "error"
        else _secret(result.secret)
        for result in response.results
    ]


def _page(response: pb.ListResponse) -> KeyPage:
    return KeyPage(tuple(response.keys), response.next_page_token)


def _metadata(response: pb.ReadMetadataResponse) -> KvMetadata:
    return KvMetadata(
        current_version=response.current_version,
        oldest_version=response.oldest_version,
        created_time=moment(response, "created_time"),
        updated_time=moment(response, "updated_time"),
        max_versions=response.max_versions,
        cas_required=response.cas_required,
        delete_version_after=response.delete_version_after.ToTimedelta(),
        custom_metadata=dict(response.custom_metadata),
        versions=tuple(_version(version) for version in response.versions),
    )


def _nothing(_response: object) -> None:
    return None
