"""A secret without its data: its versions and settings, and how each operation changes them. Pure; time is passed in.

Version numbers count from 1 without gaps. The newest `max_versions` are kept; writing one more drops the oldest for
good. A version's life: live -> deleted <-> live, and from both -> destroyed, where it stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

MAX_VERSIONS_DEFAULT = 10

MAX_VERSIONS_LIMIT = 1000
"""The most versions a secret may keep: all their metadata is one record, rewritten by every change."""

_FORMAT = 1


class Version(msgspec.Struct, frozen=True, array_like=True):
    """A version's metadata. `deletion`: when it is or becomes deleted; None when never. Times are UTC."""

    created: datetime
    deletion: datetime | None = None
    destroyed: bool = False

    def readable(self, now: datetime) -> bool:
        """Whether the data may be answered at this time."""
        return not self.destroyed and not self.deleted(now)

    def deleted(self, now: datetime) -> bool:
        """Whether the deletion time has come."""
        return self.deletion is not None and self.deletion <= now


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret's metadata.

    id: names the secret's data in storage; a secret made anew under an old path has another.
    current: the newest version's number; 0 when there is none. oldest: the oldest version kept; as in Vault 0 until as
    many versions as are kept have been written. max_versions: 0 means MAX_VERSIONS_DEFAULT.
    delete_version_after_s: how long a new version lives, in seconds; 0 means for ever.
    """

    id: str
    created: datetime
    updated: datetime
    current: int = 0
    oldest: int = 0
    max_versions: int = 0
    cas_required: bool = False
    delete_version_after_s: int = 0
    custom_metadata: dict[str, str] = {}
    versions: dict[int, Version] = {}
    format: int = _FORMAT

    def __repr__(self) -> str:
        return f"<Secret current={self.current} versions={len(self.versions)}>"  # custom metadata is the user's

    def version(self, number: int) -> Version | None:
        """A version's metadata; number 0 means the current one. None when it was never written or is kept no more."""
        return self.versions.get(number or self.current)

    def with_new_version(self, now: datetime) -> tuple[Secret, list[int]]:
        """The secret after a write, and the versions whose data falls out of it."""
        current = self.current + 1
        kept = self.max_versions or MAX_VERSIONS_DEFAULT
        oldest = current - kept + 1 if current - self.oldest >= kept else self.oldest
        dropped = [number for number in self.versions if number < oldest]
        versions = {number: version for number, version in self.versions.items() if number >= oldest}
        versions[current] = Version(now, self._deletion_after(now))
        assert sorted(versions) == list(range(current - len(versions) + 1, current + 1)), "versions are contiguous"
        changed = self._replace(current=current, oldest=oldest, updated=now, versions=versions)
        return changed, dropped

    def with_deleted(self, numbers: Iterable[int], now: datetime) -> Secret:
        """The secret after a soft delete; versions that are missing, deleted or destroyed stay as they are."""
        return self._with_versions(
            {n: Version(v.created, now) for n in numbers if (v := self.versions.get(n)) and v.readable(now)}
        )

    def with_undeleted(self, numbers: Iterable[int], now: datetime) -> Secret:
        """The secret after an undelete, which also starts `delete_version_after` again; destroyed versions stay so."""
        deletion = self._deletion_after(now)
        return self._with_versions(
            {n: Version(v.created, deletion) for n in numbers if (v := self.versions.get(n)) and not v.destroyed}
        )

    def with_destroyed(self, numbers: Iterable[int]) -> tuple[Secret, list[int]]:
        """The secret after a destroy, and the versions whose data goes with it."""
        destroyed = {
            n: Version(v.created, v.deletion, True) for n in numbers if (v := self.versions.get(n)) and not v.destroyed
        }
        return self._with_versions(destroyed), list(destroyed)

    def with_settings(
        self,
        *,
        max_versions: int | None = None,
        cas_required: bool | None = None,
        delete_version_after_s: int | None = None,
        custom_metadata: Mapping[str, str] | None = None,
    ) -> Secret:
        """The secret with other settings; None leaves one as it is. Versions over a lowered maximum go with the next
        write, and `updated` is the time of the newest version, both as in Vault."""
        return self._replace(
            max_versions=self.max_versions if max_versions is None else max_versions,
            cas_required=self.cas_required if cas_required is None else cas_required,
            delete_version_after_s=(
                self.delete_version_after_s if delete_version_after_s is None else delete_version_after_s
            ),
            custom_metadata=self.custom_metadata if custom_metadata is None else dict(custom_metadata),
        )

    def stored_versions(self) -> list[int]:
        """The versions whose data is in storage."""
        return [number for number, version in self.versions.items() if not version.destroyed]

    def encode(self) -> bytes:
        """The stored form."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, record: bytes) -> Secret:
        """Raises ValueError when the record was not made by `encode`."""
        secret = msgspec.msgpack.decode(record, type=cls)
        if secret.format != _FORMAT:
            raise ValueError(f"secret metadata of format {secret.format}")
        return secret

    def _deletion_after(self, now: datetime) -> datetime | None:
        return now + timedelta(seconds=self.delete_version_after_s) if self.delete_version_after_s else None

    def _with_versions(self, changed: Mapping[int, Version]) -> Secret:
        return self._replace(versions={**self.versions, **changed}) if changed else self

    def _replace(self, **changes: object) -> Secret:
        return msgspec.structs.replace(self, **changes)
