"""What the clients offer for the cluster's keys: rekey, root tokens, rotation; blocking, and to be awaited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from holdfast.client.api import Run
from holdfast.client.api_aio import RunAsync, documented_as
from holdfast.client.calls import keys
from holdfast.client.key_results import KeyStatus, NewShares, RekeyStatus, RootStatus


class Keys:
    """The cluster's keys. Shares need no token; neither do `rekey_status` and the calls for a root token. All others
    need one with `sudo`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def rekey_init(
        self,
        *,
        shares: int = 0,
        threshold: int = 0,
        verify: bool = True,
        pgp_keys: Sequence[str] = (),
        age_recipients: Sequence[str] = (),
    ) -> RekeyStatus:
        """Begin a rekey: new shares over the same root key. verify: whether the new shares must be seen to work before
        they count. pgp_keys, age_recipients: one for each share, which is then handed out encrypted.

        Raises FailedPrecondition when one is under way.

            nonce = client.keys.rekey_init(shares=5, threshold=3).nonce
        """
        return self._run(
            keys.rekey_init(shares, threshold, verify=verify, pgp_keys=pgp_keys, age_recipients=age_recipients)
        )

    def rekey_status(self) -> RekeyStatus:
        """The rekey under way, if any, and the set of shares in force.

        print(client.keys.rekey_status().set_id)
        """
        return self._run(keys.rekey_status())

    def rekey_update(self, share: str, nonce: str) -> RekeyStatus | NewShares:
        """Give one of the shares in force. The answer to the one that reaches the threshold is the only copy of the new
        shares. Raises ShareRejected, FailedPrecondition.

            step = client.keys.rekey_update(share, nonce)
        """
        return self._run(keys.rekey_update(share, nonce))

    def rekey_verify(self, share: str, nonce: str) -> tuple[RekeyStatus, bool]:
        """Give one of the new shares, under the verification's nonce. Returns the status, and whether the new shares
        are in force.

            status, done = client.keys.rekey_verify(new_share, made.verification_nonce)
        """
        return self._run(keys.rekey_verify(share, nonce))

    def rekey_cancel(self, *, verification: bool = False) -> RekeyStatus:
        """End a rekey; the shares in force stay so. verification: only begin the verification anew.

        client.keys.rekey_cancel()
        """
        return self._run(keys.rekey_cancel(verification=verification))

    def rekey_recover(self, nonce: str, provider: str) -> NewShares:
        """Make the new shares of the rekey under way without the current ones, which are lost: with the root key that
        the named unseal provider opens.

            made = client.keys.rekey_recover(nonce, "kms")
        """
        return self._run(keys.rekey_recover(nonce, provider))

    def root_init(self, *, otp: str = "", pgp_key: str = "") -> RootStatus:
        """Begin the generation of a root token. otp: empty to have one made, which is in the answer.

        began = client.keys.root_init()
        """
        return self._run(keys.root_init(otp, pgp_key))

    def root_status(self) -> RootStatus:
        """The generation under way, if any.

        print(client.keys.root_status().progress)
        """
        return self._run(keys.root_status())

    def root_update(self, share: str, nonce: str) -> RootStatus:
        """Give a share. The answer to the one that reaches the threshold is the only copy of the encoded token.

        done = client.keys.root_update(share, began.nonce)
        """
        return self._run(keys.root_update(share, nonce))

    def root_cancel(self) -> RootStatus:
        """End a generation.

        client.keys.root_cancel()
        """
        return self._run(keys.root_cancel())

    def rotate(self) -> KeyStatus:
        """Make a new key term, which encrypts from then on.

        print(client.keys.rotate().term)
        """
        return self._run(keys.rotate())

    def status(self) -> KeyStatus:
        """The active key term, its use, and how far data was brought under it.

        print(client.keys.status().encryptions)
        """
        return self._run(keys.key_status())

    def configure_rotation(
        self,
        *,
        interval: timedelta | None = None,
        max_encryptions: int | None = None,
        reencrypt: bool | None = None,
        rate: int | None = None,
        keep_terms: int | None = None,
    ) -> KeyStatus:
        """Change when the keyring rotates by itself; what is None stays. interval: 0 for no rotation by age.

        client.keys.configure_rotation(interval=timedelta(days=90))
        """
        return self._run(
            keys.configure_rotation(
                interval=interval,
                max_encryptions=max_encryptions,
                reencrypt=reencrypt,
                rate=rate,
                keep_terms=keep_terms,
            )
        )


class AsyncKeys:
    """`Keys` of the blocking client, to be awaited."""

    def __init__(self, run: RunAsync) -> None:
        self._run = run

    @documented_as(Keys.rekey_init)
    async def rekey_init(
        self,
        *,
        shares: int = 0,
        threshold: int = 0,
        verify: bool = True,
        pgp_keys: Sequence[str] = (),
        age_recipients: Sequence[str] = (),
    ) -> RekeyStatus:
        return await self._run(
            keys.rekey_init(shares, threshold, verify=verify, pgp_keys=pgp_keys, age_recipients=age_recipients)
        )

    @documented_as(Keys.rekey_status)
    async def rekey_status(self) -> RekeyStatus:
        return await self._run(keys.rekey_status())

    @documented_as(Keys.rekey_update)
    async def rekey_update(self, share: str, nonce: str) -> RekeyStatus | NewShares:
        return await self._run(keys.rekey_update(share, nonce))

    @documented_as(Keys.rekey_verify)
    async def rekey_verify(self, share: str, nonce: str) -> tuple[RekeyStatus, bool]:
        return await self._run(keys.rekey_verify(share, nonce))

    @documented_as(Keys.rekey_cancel)
    async def rekey_cancel(self, *, verification: bool = False) -> RekeyStatus:
        return await self._run(keys.rekey_cancel(verification=verification))

    @documented_as(Keys.rekey_recover)
    async def rekey_recover(self, nonce: str, provider: str) -> NewShares:
        return await self._run(keys.rekey_recover(nonce, provider))

    @documented_as(Keys.root_init)
    async def root_init(self, *, otp: str = "", pgp_key: str = "") -> RootStatus:
        return await self._run(keys.root_init(otp, pgp_key))

    @documented_as(Keys.root_status)
    async def root_status(self) -> RootStatus:
        return await self._run(keys.root_status())

    @documented_as(Keys.root_update)
    async def root_update(self, share: str, nonce: str) -> RootStatus:
        return await self._run(keys.root_update(share, nonce))

    @documented_as(Keys.root_cancel)
    async def root_cancel(self) -> RootStatus:
        return await self._run(keys.root_cancel())

    @documented_as(Keys.rotate)
    async def rotate(self) -> KeyStatus:
        return await self._run(keys.rotate())

    @documented_as(Keys.status)
    async def status(self) -> KeyStatus:
        return await self._run(keys.key_status())

    @documented_as(Keys.configure_rotation)
    async def configure_rotation(
        self,
        *,
        interval: timedelta | None = None,
        max_encryptions: int | None = None,
        reencrypt: bool | None = None,
        rate: int | None = None,
        keep_terms: int | None = None,
    ) -> KeyStatus:
        return await self._run(
            keys.configure_rotation(
                interval=interval,
                max_encryptions=max_encryptions,
                reencrypt=reencrypt,
                rate=rate,
                keep_terms=keep_terms,
            )
        )
