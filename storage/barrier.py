"""The barrier: the one place where names and values pass between plaintext and ciphertext.

Everything above it sees paths and plaintext, everything below it (log, store, snapshot, wire) ciphertext only. It lives
as long as the node is unsealed, and takes up every keyring that replaces its own while it does. One thread.

The fence ties what is written to the keyring it was encrypted with. Every batch carries it as a precondition, so that a
batch made with a keyring that was replaced meanwhile conflicts and is made again. Hence every record with a higher
revision than the keyring's is of that keyring's active term.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Never

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from holdfast.proto.errors import Corruption, InvalidArgument
from holdfast.storage import envelope, names, paths
from holdfast.storage.batch import Precondition
from holdfast.storage.keyring import Keyring
from holdfast.storage.keys import KEY_BYTES_MAX

CACHED_PATHS_MAX = 8192
"""How many paths' physical keys are remembered."""

_SEGMENT_BYTES_MIN = 2 + names.SIV_BYTES + 1

_CACHED_PATH_CHARS_MAX = 512
"""Longer paths are not remembered, so that the cache stays within a few MiB."""


class Barrier:
    """Encrypts and decrypts with one keyring, which it owns. After `close` every use raises Sealed.

    random_bytes: cryptographically secure; gives the nonces. fence: the keyring's record and its revision; None for a
    keyring that is not stored yet. refresh: has the newest stored keyring taken up (`adopt`).
    """

    __slots__ = ("_encryptions", "_fence", "_keyring", "_physical", "_random_bytes", "_refresh")

    def __init__(
        self,
        keyring: Keyring,
        random_bytes: Callable[[int], bytes],
        *,
        fence: Precondition | None = None,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._keyring = keyring
        self._fence = fence
        self._refresh = refresh
        self._random_bytes = random_bytes
        self._physical: OrderedDict[str, bytes] = OrderedDict()
        self._encryptions = 0

    @property
    def encryptions(self) -> int:
        """How many values this barrier has encrypted under the active term, for rotation by count
        (`envelope.ENCRYPTIONS_PER_TERM_MAX`)."""
        return self._encryptions

    @property
    def fence(self) -> Precondition | None:
        """What must hold when a batch that was encrypted here is applied."""
        return self._fence

    @property
    def keyring(self) -> Keyring:
        """The keyring in use; for those who replace or show it. Do not keep it."""
        return self._keyring

    def adopt(self, keyring: Keyring, fence: Precondition) -> None:
        """Go over to a keyring that replaces this one's. Requests under way go over with it: what they read before is
        plaintext by now, and what they will write is encrypted at once, when their batch is made.

        Raises Corruption when the keyring is of another tree."""
        if not keyring.succeeds(self._keyring):
            raise Corruption("the stored keyring is of another cluster's data: restore this node from its peers")
        if keyring.active_term != self._keyring.active_term:
            self._encryptions = 0
        earlier, self._keyring, self._fence = self._keyring, keyring, fence
        earlier.close()

    async def refresh(self) -> bool:
        """Take up the newest keyring that is stored here. Returns whether there was a newer one. To be called when a
        value's term is not known: its keyring may have been applied in the very step in which the value was."""
        before = self._fence
        if self._refresh is not None:
            await self._refresh()
        return self._fence != before

    def physical(self, path: str) -> bytes:
        """The physical key of a logical path such as "shared/a/b". The class alone gives the root of its tree.

        Raises InvalidArgument when the path is malformed or its key would pass KEY_BYTES_MAX."""
        cipher = self._keyring.name_cipher()  # first: a closed barrier answers nothing, from its cache neither
        cached = self._physical.get(path)
        if cached is not None:
            self._physical.move_to_end(path)
            return cached
        _, segments = paths.split(path)
        if len(segments) * _SEGMENT_BYTES_MIN > KEY_BYTES_MAX:
            raise _too_long()
        return self._derive(cipher, path)

    def segment(self, parent_key: bytes, name: str) -> bytes:
        """The framed segment of a name directly below a physical key. Raises InvalidArgument for a malformed name."""
        paths.check_name(name)
        return names.encrypt_segment(self._keyring.name_cipher(), parent_key, name)

    def open_segment(self, parent_key: bytes, segment: bytes) -> str:
        """The name in a framed segment below a physical key. Raises Corruption when it does not open."""
        return names.decrypt_segment(self._keyring.name_cipher(), parent_key, segment)

    def encrypt(self, key: bytes, plaintext: bytes) -> bytes:
        """The envelope of a value, under the active term, that opens only at the physical key `key`."""
        term = self._keyring.active_term
        self._encryptions += 1
        nonce = self._random_bytes(envelope.NONCE_BYTES)
        return envelope.encrypt(self._keyring.cipher(term), term, nonce, key, plaintext)

    def decrypt(self, key: bytes, sealed: bytes) -> bytes:
        """The value in the envelope stored at the physical key `key`. Raises Corruption when it does not open, and
        UnknownTerm (see `refresh`)."""
        self._keyring.name_cipher()  # a closed barrier is sealed, whatever it is given
        return envelope.decrypt(self._keyring.cipher(envelope.term_of(sealed)), key, sealed)

    def request_key(self, material: bytes) -> bytes:
        """16 bytes, a keyed hash that stands for a request id in the state machine."""
        return self._keyring.request_key(material)

    def close(self) -> None:
        """Drop the keyring, the ciphers and every remembered name. May be called again."""
        self._keyring.close()
        self._physical.clear()

    def _derive(self, cipher: AESSIV, path: str) -> bytes:
        """The key of a checked path, by way of its nearest remembered ancestor."""
        key = self._physical.get(path)
        if key is not None:
            self._physical.move_to_end(path)
            return key
        parent, _, name = path.rpartition("/")
        if not parent:
            key_class, _ = paths.split(path)
            return key_class.value
        parent_key = self._derive(cipher, parent)
        key = parent_key + names.encrypt_segment(cipher, parent_key, name)
        if len(key) > KEY_BYTES_MAX:
            raise _too_long()
        if len(path) <= _CACHED_PATH_CHARS_MAX:
            self._physical[path] = key
            if len(self._physical) > CACHED_PATHS_MAX:
                self._physical.popitem(last=False)
        return key

    def __repr__(self) -> str:
        return f"<Barrier {self._keyring!r}>"

    def __reduce__(self) -> Never:
        raise TypeError("a barrier is never copied or serialised")


def _too_long() -> InvalidArgument:
    return InvalidArgument(
        f"a path is too long or too deep: its encrypted form passes {KEY_BYTES_MAX} bytes", field="path"
    )
