"""KV version 2, driven through Core, LocalConsensus and the real barrier, against a model made of plain dicts."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.core_node import CoreNode, request_id
from support.local_consensus import Fault

from holdfast.proto.errors import Conflict, InvalidArgument, NotFound, OutcomeUnknown

PATHS = st.sampled_from(["a", "a", "a", "b", "a/b", "ä/ /x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aä\0")
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner), max_leaves=4
)
DOCUMENTS = st.dictionaries(st.text("abc", max_size=2), JSON, max_size=3)
VERSIONS = st.lists(st.integers(1, 14), min_size=1, max_size=4)
OUTCOMES = st.sampled_from([None, None, None, Fault.LOST_REPLY, Fault.LOST_PROPOSAL, Fault.NOT_LEADER])


class Model:
    """What a secret is, without a thought for storage: number -> [data, deleted at, destroyed]."""

    def __init__(self) -> None:
        self.versions: dict[int, list[Any]] = {}
        self.current = 0
        self.max_versions = 0
        self.cas_required = False
        self.delete_after = 0
        self.custom: dict[str, str] = {}

    def readable(self, number: int, now: float) -> bool:
        _, deleted, destroyed = self.versions[number]
        return not destroyed and (deleted is None or deleted > now)

    def add(self, data: Any, now: float) -> None:
        self.current += 1
        self.versions[self.current] = [data, now + self.delete_after if self.delete_after else None, False]
        while len(self.versions) > (self.max_versions or 10):
            del self.versions[min(self.versions)]


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


class KvMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.secrets: dict[str, Model] = {}
        self.sequence = 0

    @initialize()
    def begin(self) -> None:
        self.node = self.loop.run_until_complete(CoreNode().bootstrap())

    def teardown(self) -> None:
        self.loop.close()

    def ask(self, operation: str, path: str, data: dict[str, Any] | None = None, fault: Fault | None = None) -> Any:
        """One request as a client sends it: under an id, again after an unknown outcome or a change of leader."""
        if fault is not None:
            self.node.consensus.fail_next(fault)
        self.sequence += 1
        more: dict[str, Any] = {} if operation in ("read", "list") else {"request_id": request_id(self.sequence)}
        try:
            return self.loop.run_until_complete(self._retried(operation, path, data, more))
        finally:
            self.node.consensus.faults.clear()

    async def _retried(self, operation: str, path: str, data: Any, more: dict[str, Any]) -> Any:
        while True:
            try:
                return await self.node.ask(operation, path, data, **more)
            except OutcomeUnknown:
                continue

    def cas_error(self, model: Model | None, cas: int | None) -> type[Exception] | None:
        if cas is None:
            return InvalidArgument if model is not None and model.cas_required else None
        return None if cas == (model.current if model else 0) else Conflict

    @rule(path=PATHS, data=DOCUMENTS, cas=st.none() | st.integers(0, 3), fault=OUTCOMES)
    def put(self, path: str, data: dict[str, Any], cas: int | None, fault: Fault | None) -> None:
        body: dict[str, Any] = {"data": data}
        if cas is not None:
            body["options"] = {"cas": cas}
        error = self.cas_error(self.secrets.get(path), cas)
        if error is not None:
            self.refused(error, "update", f"secret/data/{path}", body)
            return
        answer = self.ask("update", f"secret/data/{path}", body, fault)
        model = self.secrets.setdefault(path, Model())
        model.add(data, self.node.time)
        assert answer["version"] == model.current

    @rule(path=PATHS, count=st.integers(2, 12))
    def put_many(self, path: str, count: int) -> None:
        """So that versions are pushed out often."""
        model = self.secrets.setdefault(path, Model())
        for n in range(count):
            data = {"n": n}
            self.ask("update", f"secret/data/{path}", {"data": data, "options": {"cas": model.current}})
            model.add(data, self.node.time)

    @rule(path=PATHS, patch=DOCUMENTS, fault=OUTCOMES)
    def patch(self, path: str, patch: dict[str, Any], fault: Fault | None) -> None:
        model = self.secrets.get(path)
        if model is None:
            self.refused(NotFound, "patch", f"secret/data/{path}", {"data": patch})
        elif model.cas_required:
            self.refused(InvalidArgument, "patch", f"secret/data/{path}", {"data": patch})
        elif not model.current or not model.readable(model.current, self.node.time):
            self.refused(NotFound, "patch", f"secret/data/{path}", {"data": patch})
        else:
            self.ask("patch", f"secret/data/{path}", {"data": patch}, fault)
            model.add(merge(model.versions[model.current][0], patch), self.node.time)

    @rule(path=PATHS, fault=OUTCOMES)
    def delete_latest(self, path: str, fault: Fault | None) -> None:
        self.ask("delete", f"secret/data/{path}", None, fault)
        if (model := self.secrets.get(path)) and model.current:
            self.mark_deleted(model, [model.current])

    @rule(path=PATHS, versions=VERSIONS, fault=OUTCOMES)
    def delete_versions(self, path: str, versions: list[int], fault: Fault | None) -> None:
        self.ask("update", f"secret/delete/{path}", {"versions": versions}, fault)
        if model := self.secrets.get(path):
            self.mark_deleted(model, versions)

    def mark_deleted(self, model: Model, versions: list[int]) -> None:
        for number in versions:
            if number in model.versions and model.readable(number, self.node.time):
                model.versions[number][1] = self.node.time

    @rule(path=PATHS, versions=VERSIONS, fault=OUTCOMES)
    def undelete(self, path: str, versions: list[int], fault: Fault | None) -> None:
        self.ask("update", f"secret/undelete/{path}", {"versions": versions}, fault)
        if model := self.secrets.get(path):
            for number in versions:
                if number in model.versions and not model.versions[number][2]:
                    model.versions[number][1] = self.node.time + model.delete_after if model.delete_after else None

    @rule(path=PATHS, versions=VERSIONS, fault=OUTCOMES)
    def destroy(self, path: str, versions: list[int], fault: Fault | None) -> None:
        self.ask("update", f"secret/destroy/{path}", {"versions": versions}, fault)
        if model := self.secrets.get(path):
            for number in versions:
                if number in model.versions:
                    model.versions[number][2] = True

    @rule(
        path=PATHS,
        max_versions=st.none() | st.integers(0, 4),
        cas_required=st.none() | st.just(False) | st.booleans(),
        delete_after=st.none() | st.integers(0, 20),
        custom=st.none() | st.dictionaries(st.text("ab", min_size=1), st.text("ab", min_size=1)),
    )
    def write_metadata(
        self,
        path: str,
        max_versions: int | None,
        cas_required: bool | None,
        delete_after: int | None,
        custom: dict[str, str] | None,
    ) -> None:
        given = {
            "max_versions": max_versions, "cas_required": cas_required, "delete_version_after": delete_after,
            "custom_metadata": custom,
        }  # fmt: skip
        data = {name: value for name, value in given.items() if value is not None}
        self.ask("update", f"secret/metadata/{path}", data)
        if data:
            model = self.secrets.setdefault(path, Model())
            model.max_versions = model.max_versions if max_versions is None else max_versions
            model.cas_required = model.cas_required if cas_required is None else cas_required
            model.delete_after = model.delete_after if delete_after is None else delete_after
            model.custom = model.custom if custom is None else custom

    @rule(path=PATHS, fault=OUTCOMES)
    def delete_metadata(self, path: str, fault: Fault | None) -> None:
        self.ask("delete", f"secret/metadata/{path}", None, fault)
        self.secrets.pop(path, None)

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.node.time += seconds

    def refused(self, error: type[Exception], operation: str, path: str, data: Any = None) -> None:
        try:
            self.ask(operation, path, data)
        except error:
            return
        raise AssertionError(f"{operation} was not refused with {error.__name__}")

    @invariant()
    def every_version_reads_as_the_model_says(self) -> None:
        for path in ("a", "b", "a/b", "ä/ /x"):
            model = self.secrets.get(path)
            if model is None:
                self.refused(NotFound, "read", f"secret/metadata/{path}")
                continue
            meta = self.ask("read", f"secret/metadata/{path}")
            assert meta["current_version"] == model.current
            assert meta["custom_metadata"] == (model.custom or None)
            numbers = [int(number) for number in meta["versions"]]
            assert numbers == sorted(model.versions)
            assert numbers == list(range(model.current - len(numbers) + 1, model.current + 1)), "contiguous"
            for number in numbers:
                answer = self.ask("read", f"secret/data/{path}", {"version": number})
                readable = model.readable(number, self.node.time)
                assert answer["data"] == (model.versions[number][0] if readable else None)
                assert answer["metadata"]["destroyed"] == model.versions[number][2]
                assert bool(answer["metadata"]["deletion_time"]) == (model.versions[number][1] is not None)

    @invariant()
    def the_list_shows_exactly_the_secrets(self) -> None:
        expected = {path for path in ("a", "b") if path in self.secrets}
        expected |= {path.split("/")[0] + "/" for path in self.secrets if "/" in path}
        if expected:
            assert set(self.ask("list", "secret/metadata")["keys"]) == expected
        else:
            self.refused(NotFound, "list", "secret/metadata")

    @invariant()
    def nothing_is_left_behind_in_storage(self) -> None:
        bodies = sum(not version[2] for model in self.secrets.values() for version in model.versions.values())
        bootstrap = 5  # mounts, salt, token, accessor, audit key
        assert len(self.node.consensus.records) == bootstrap + len(self.secrets) + bodies


KvMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestKvDoesWhatADictWould = KvMachine.TestCase
