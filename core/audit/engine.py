"""`sys/audit`: which devices record the requests; `sys/audit-hash` and `sys/audit-verify`, to read what they wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from holdfast.core.audit import table
from holdfast.core.audit.devices import AuditDevices, chain_key
from holdfast.core.audit.hashing import AUDIT_PREFIX, load_hasher
from holdfast.core.audit.table import Device
from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView, fields
from holdfast.core.plugin.auditing import chain_mac
from holdfast.core.plugin.times import rfc3339
from holdfast.core.router import SystemMount
from holdfast.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

VERIFY_MAX = 1000
"""How many lines one request may have verified."""


def audit_mounts(devices: AuditDevices) -> Sequence[SystemMount]:
    """What the core mounts beside `sys/`. All three see `local/audit`: the audit key and the table of devices."""
    return [
        SystemMount("sys/audit/", AuditEngine(devices), AUDIT_PREFIX),
        SystemMount("sys/audit-hash/", _Paths("audit-hash", _HASH), AUDIT_PREFIX),
        SystemMount("sys/audit-verify/", _Paths("audit-verify", _VERIFY), AUDIT_PREFIX),
    ]


class _Paths:
    def __init__(self, type_: str, spec: PathSpec) -> None:
        self.type = type_
        self._spec = spec

    def paths(self) -> Sequence[PathSpec]:
        return (self._spec,)


class AuditEngine:
    """`sys/audit`."""

    def __init__(self, devices: AuditDevices) -> None:
        self._devices = devices

    @property
    def type(self) -> str:
        """See Engine."""
        return "audit"

    def paths(self) -> Sequence[PathSpec]:
        """See Engine."""
        options = {"type": "The kind of device.", "description": "For people.", "options": "The device's options."}
        return (
            PathSpec(
                "", {Operation.READ: OperationSpec(self._list, "List the devices.")}, "The audit devices.", sudo=True
            ),
            PathSpec(
                "{device}",
                {
                    Operation.UPDATE: OperationSpec(self._enable, "Enable a device.", options),
                    Operation.DELETE: OperationSpec(self._disable, "Disable a device."),
                },
                "One audit device.",
                sudo=True,
            ),
        )

    async def _list(self, ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG002
        devices = table.decode(await view.get(table.TABLE_NAME))
        return Response(data={path: _shown(path, device) for path, device in sorted(devices.items())})

    async def _enable(self, ctx: HandlerContext, view: StorageView) -> Response:
        path = ctx.fields["device"] + "/"
        device = self._asked(ctx)
        devices = table.decode(await view.get(table.TABLE_NAME))
        if path in devices:
            raise AlreadyExists("an audit device is enabled at this path: disable it first, or choose another path")
        if len(devices) >= table.DEVICES_MAX:
            raise FailedPrecondition(
                f"{table.DEVICES_MAX} audit devices are enabled, the most allowed: disable one first"
            )
        # An act outside the view, which may be repeated: a test entry. A device that takes none would stop everything.
        await self._devices.test(path, device, chain_mac(chain_key(await view.get("key"))))
        view.put(table.TABLE_NAME, table.encode(devices | {path: device}))
        return Response()

    def _asked(self, ctx: HandlerContext) -> Device:
        kind = fields.text(ctx.data, "type") or ctx.fields["device"]
        if kind not in self._devices.types:
            known = ", ".join(sorted(self._devices.types))
            raise InvalidArgument(f"there is no such type of audit device; there are: {known}", field="type")
        options: dict[str, str] = {}
        for name, value in (fields.mapping(ctx.data, "options") or {}).items():
            if name not in self._devices.types[kind].options:
                takes = ", ".join(self._devices.types[kind].options)
                raise InvalidArgument(f"the device has no such option; it takes: {takes}", field="options")
            if not isinstance(value, str | int | bool):
                raise InvalidArgument("an option of the device is not a string, a number or a boolean", field="options")
            options[name] = str(value).lower() if isinstance(value, bool) else str(value)
        self._devices.types[kind].check(options)
        return Device(
            type=kind,
            uuid=str(UUID(bytes=ctx.random_bytes(16), version=4)),
            created=rfc3339(ctx.now),
            options=options,
            description=fields.text(ctx.data, "description"),
        )

    async def _disable(self, ctx: HandlerContext, view: StorageView) -> Response:
        devices = table.decode(await view.get(table.TABLE_NAME))
        if devices.pop(ctx.fields["device"] + "/", None) is None:
            raise NotFound("no audit device is enabled at this path: see sys/audit")
        view.put(table.TABLE_NAME, table.encode(devices))
        return Response()


async def hash_value(ctx: HandlerContext, view: StorageView) -> Response:
    """The hash under which a value stands in a device's log."""
    if ctx.fields["device"] + "/" not in table.decode(await view.get(table.TABLE_NAME)):
        raise NotFound("no audit device is enabled at this path: see sys/audit")
    value = fields.text(ctx.data, "input", bytes_max=1024 * 1024)
    if not value:
        raise InvalidArgument("give the value to hash", field="input")
    return Response(data={"hash": (await load_hasher(view)).hash(value)})


async def verify_lines(ctx: HandlerContext, view: StorageView) -> Response:
    """Whether the macs of lines were made with this cluster's chain key."""
    mac = chain_mac(chain_key(await view.get("key")))
    lines = ctx.data.get("lines")
    if not isinstance(lines, list) or not 0 < len(lines) <= VERIFY_MAX:
        raise InvalidArgument(f"lines must be a list of 1 to {VERIFY_MAX} objects", field="lines")
    return Response(data={"valid": [_vouched(line, mac) for line in lines]})


def _vouched(line: object, mac: Any) -> bool:
    if not isinstance(line, dict):
        raise InvalidArgument('a line must be an object of "digest" and "mac"', field="lines")
    try:
        digest = bytes.fromhex(str(line.get("digest")))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise InvalidArgument("a digest must be 64 hexadecimal digits", field="lines")
    return bool(mac(digest) == line.get("mac"))


def _shown(path: str, device: Device) -> Mapping[str, Any]:
    return {
        "type": device.type,
        "path": path,
        "description": device.description,
        "options": device.options,
        "local": True,
        "created_time": device.created,
    }


_HASH = PathSpec(
    "{device}",
    {Operation.UPDATE: OperationSpec(hash_value, "Hash a value.", {"input": "The value."})},
    "The hash under which a value stands in the log.",
    sudo=True,
)

_VERIFY = PathSpec(
    "",
    {Operation.UPDATE: OperationSpec(verify_lines, "Check lines.", {"lines": 'Objects of "digest" and "mac", hex.'})},
    "Whether lines of the log were made by this cluster.",
)
