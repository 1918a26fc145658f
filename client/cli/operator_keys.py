"""`holdfast operator rekey`, `rotate`, `key-status`, `generate-root`: the cluster's keys, with Vault's grammar."""

from __future__ import annotations

import base64
import binascii
import secrets
import string
import sys
from pathlib import Path
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Command, hidden, pass_app, yes_option
from holdfast.client.cli.output import table, timestamp
from holdfast.client.durations import parse_duration
from holdfast.client.failures import LocalError
from holdfast.client.key_results import KeyStatus, NewShares, RekeyStatus, RootStatus

_ALPHABET = string.ascii_letters + string.digits
_PGP_FILE_BYTES_MAX = 64 * 1024

_init = click.option("--init", is_flag=True, help="Begin.")
_status = click.option("--status", is_flag=True, help="Show what is under way.")
_cancel = click.option("--cancel", is_flag=True, help="End what is under way.")
_nonce = click.option("--nonce", default="", metavar="NONCE", help="Of the ceremony.  [default: the one under way]")


@click.command(cls=Command, context_settings=SETTINGS)
@click.argument("share", required=False)
@_init
@_status
@_cancel
@click.option("--verify", is_flag=True, help="Act on the verification: give a new key, or with -cancel begin it anew.")
@click.option("--no-verify", is_flag=True, help="With -init: put the new keys in force unseen.")
@click.option("-n", "--key-shares", type=click.IntRange(1, 255), help="Keys to make.  [default: 5]")
@click.option("-t", "--key-threshold", type=click.IntRange(1, 255), help="Keys that unseal a node.  [default: 3]")
@click.option("--pgp-keys", default="", metavar="FILES", help="Public keys, separated by commas, one for each new key.")
@click.option("--age-recipients", default="", metavar="LIST", help="age recipients, one for each new key.")
@click.option("--recover-from", default="", metavar="PROVIDER", help="The current keys are lost: -init, then no keys.")
@_nonce
@yes_option
@pass_app
def rekey(app: App, /, share: str | None, **flags: Any) -> None:
    """Replace the unseal keys, and how many there are. The root key and the data stay as they are.

    Begin with -init; then each keeper of a current key gives it. The last one is shown the new keys, once. They are not
    in force until enough of them were given with -verify: until then the old ones are, and -cancel ends it all.

    \b
    Examples:
      holdfast operator rekey -init -key-shares=5 -key-threshold=3
      holdfast operator rekey
      holdfast operator rekey -verify
      holdfast operator rekey -status
      holdfast operator rekey -cancel
      holdfast operator rekey -init -key-shares=2 -key-threshold=2 -pgp-keys=ann.asc,bob.asc
      holdfast operator rekey -init -recover-from=kms
    """
    if flags["init"]:
        _rekey_init(app, share, flags)
    elif flags["status"]:
        _rekey_show(app, None)
    elif flags["cancel"]:
        with app.client() as client:
            _rekey_show(app, client.keys.rekey_cancel(verification=flags["verify"]))
    elif flags["verify"]:
        _rekey_verify(app, share, flags["nonce"])
    elif flags["recover_from"]:
        _recover(app, flags["recover_from"], "", yes=flags["yes"])
    else:
        _rekey_update(app, share, flags["nonce"])


def _rekey_init(app: App, share: str | None, flags: dict[str, Any]) -> None:
    if share is not None:
        raise LocalError("-init takes no key: begin first, then give keys.", field="-init")
    if flags["verify"] and flags["no_verify"]:
        raise LocalError("give -verify or -no-verify, not both.", field="-no-verify")
    if flags["recover_from"]:
        _confirm_recovery(app, flags["recover_from"], yes=flags["yes"])
    with app.client() as client:
        began = client.keys.rekey_init(
            shares=flags["key_shares"] or 0,
            threshold=flags["key_threshold"] or 0,
            verify=not flags["no_verify"],
            pgp_keys=_files(flags["pgp_keys"]),
            age_recipients=[key.strip() for key in flags["age_recipients"].split(",") if key.strip()],
        )
    if flags["recover_from"]:
        _recover(app, flags["recover_from"], began.nonce, yes=True)
        return
    if flags["no_verify"]:
        app.warn("the new keys will be in force unseen: if the answer that brings them is lost, nobody holds any.")
    _rekey_show(app, began)


def _recover(app: App, provider: str, nonce: str, *, yes: bool) -> None:
    _confirm_recovery(app, provider, yes=yes)
    with app.client() as client:
        nonce = nonce or client.keys.rekey_status().nonce
        if not nonce:
            raise LocalError("no rekey is under way. Begin with `holdfast operator rekey -init -recover-from=...`.")
        _show_new(app, client.keys.rekey_recover(nonce, provider))


def _confirm_recovery(app: App, provider: str, *, yes: bool) -> None:
    app.confirm(
        "The current unseal keys are to be replaced without any of them, and whoever reads the answer holds all new"
        f" ones, by leave of the unseal provider {provider} and of your token alone.",
        yes=yes,
    )


def _rekey_update(app: App, share: str | None, nonce: str) -> None:
    with app.client() as client:
        nonce = nonce or client.keys.rekey_status().nonce
        if not nonce:
            raise LocalError("no rekey is under way. Begin with `holdfast operator rekey -init`.")
        step = client.keys.rekey_update(_share(app, share, nonce), nonce)
    if isinstance(step, NewShares):
        _show_new(app, step)
    else:
        _rekey_show(app, step)


def _rekey_verify(app: App, share: str | None, nonce: str) -> None:
    with app.client() as client:
        nonce = nonce or client.keys.rekey_status().verification_nonce
        if not nonce:
            raise LocalError("no new keys wait for verification. See `holdfast operator rekey -status`.")
        status, done = client.keys.rekey_verify(_share(app, share, nonce), nonce)
    if not done:
        _rekey_show(app, status)
        return
    app.show(
        {"complete": True, "set_id": status.set_id, "threshold": status.required},
        lambda: f"The new keys (set {status.set_id}) are in force. Destroy the old ones.",
    )


def _rekey_show(app: App, status: RekeyStatus | None) -> None:
    if status is None:
        with app.client() as client:
            status = client.keys.rekey_status()
    shown = status
    facts = {
        "started": bool(shown.nonce),
        "nonce": shown.nonce or None,
        "set_id": shown.set_id,
        "progress": shown.progress,
        "required": shown.required,
        "n": shown.shares,
        "t": shown.threshold,
        "verification_required": shown.verification_required,
        "verification_nonce": shown.verification_nonce or None,
        "verification_progress": shown.verification_progress,
        "fingerprints": list(shown.fingerprints),
    }
    app.show(facts, lambda: _rekey_text(shown))


def _rekey_text(status: RekeyStatus) -> str:
    rows: list[tuple[str, Any]] = [("Set in force", status.set_id), ("Rekey", "under way" if status.nonce else "none")]
    if status.nonce:
        rows += [("Nonce", status.nonce), ("New keys", f"{status.shares}, {status.threshold} unseal")]
        if status.verification_nonce:
            rows.append(("Verification nonce", status.verification_nonce))
            rows.append(("Verification", f"{status.verification_progress} of {status.threshold} new keys given"))
        else:
            rows.append(("Progress", f"{status.progress} of {status.required} current keys given"))
    return table(("Key", "Value"), rows)


def _show_new(app: App, made: NewShares) -> None:
    facts = {
        "keys": list(made.shares),
        "set_id": made.set_id,
        "threshold": made.threshold,
        "in_force": made.in_force,
        "verification_nonce": made.verification_nonce or None,
        "fingerprints": list(made.fingerprints),
    }
    words = {
        "yes": "They are in force: the old keys unseal nothing any more.",
        "pending": "They are NOT in force yet: the old keys still are. Give as many of the new ones as unseal, with\n"
        f"`holdfast operator rekey -verify` (nonce {made.verification_nonce}).",
        "unknown": "Whether they are in force could not be found out in time. Keep the old keys AND these, and see\n"
        "`holdfast operator rekey -status`: it names the set in force.",
    }
    lines: list[str] = []
    for number, share in enumerate(made.shares, 1):
        whom = f" (for {made.fingerprints[number - 1]})" if made.fingerprints else ""
        lines.append(f"Key {number}{whom}: " + (f"\n{share}" if "\n" in share else share))
    lines += ["", f"Set {made.set_id}; any {made.threshold} of these keys unseal a node. Nobody has another copy."]
    lines.append(words[made.in_force])
    app.show(facts, lambda: "\n".join(lines))


@click.command("generate-root", cls=Command, context_settings=SETTINGS)
@click.argument("share", required=False)
@_init
@_status
@_cancel
@click.option("--generate-otp", is_flag=True, help="Print an OTP for -init -otp.")
@click.option("--otp", default="", metavar="OTP", help="With -init: use it; with -decode: it was used.")
@click.option("--decode", default="", metavar="TOKEN", help="The encoded token; asks for the OTP.")
@click.option("--pgp-key", default="", metavar="FILE", help="With -init: encrypt the token to this public key.")
@_nonce
@pass_app
def generate_root(app: App, /, share: str | None, **flags: Any) -> None:
    """Make a new root token, by a threshold of unseal keys; no token is needed.

    \b
    Examples:
      holdfast operator generate-root -init
      holdfast operator generate-root
      holdfast operator generate-root -decode=ENCODED
      holdfast operator generate-root -cancel
    """
    if flags["generate_otp"]:
        with app.client() as client:
            length = client.keys.root_status().otp_length
        otp = "".join(secrets.choice(_ALPHABET) for _ in range(length))
        app.show({"otp": otp}, lambda: otp)
    elif flags["decode"]:
        token = decode_token(flags["decode"], flags["otp"] or hidden("OTP (will be hidden): "))
        app.show({"token": token}, lambda: token)
    elif flags["init"]:
        with app.client() as client:
            keys = _files(flags["pgp_key"])
            _root_show(app, client.keys.root_init(otp=flags["otp"], pgp_key=keys[0] if keys else ""))
    elif flags["cancel"]:
        with app.client() as client:
            _root_show(app, client.keys.root_cancel())
    else:
        _root_give(app, share, flags)


def _root_give(app: App, share: str | None, flags: dict[str, Any]) -> None:
    with app.client() as client:
        status = client.keys.root_status()
        if not flags["status"]:
            nonce = flags["nonce"] or status.nonce
            if not nonce:
                raise LocalError("nothing is under way. Begin with `holdfast operator generate-root -init`.")
            status = client.keys.root_update(_share(app, share, nonce), nonce)
    _root_show(app, status)


def _root_show(app: App, status: RootStatus) -> None:
    facts = {
        "started": bool(status.nonce),
        "nonce": status.nonce or None,
        "progress": status.progress,
        "required": status.required,
        "complete": status.complete,
        "otp": status.otp or None,
        "otp_length": status.otp_length,
        "encoded_token": status.encoded_token or None,
        "pgp_fingerprint": status.pgp_fingerprint or None,
    }
    rows: list[tuple[str, Any]] = [("Started", str(bool(status.nonce)).lower())]
    if status.nonce:
        rows += [("Nonce", status.nonce), ("Progress", f"{status.progress}/{status.required}")]
    rows.append(("Complete", str(status.complete).lower()))
    if status.pgp_fingerprint:
        rows.append(("PGP Fingerprint", status.pgp_fingerprint))
    if status.otp:
        rows += [("OTP", status.otp), ("OTP Length", status.otp_length)]
    text = table(("Key", "Value"), rows)
    if status.encoded_token:
        text += f"\n\nEncoded Token: {status.encoded_token}"
    app.show(facts, lambda: text)


def decode_token(encoded: str, otp: str) -> str:
    """The token in what the ceremony gave. Raises LocalError when the two do not belong together."""
    try:
        mixed = base64.b64decode(encoded.strip() + "=" * (-len(encoded.strip()) % 4), validate=True)
    except binascii.Error:
        raise LocalError("the encoded token is not base64: copy the whole line.", field="-decode") from None
    if len(mixed) != len(otp.encode()):
        raise LocalError("the OTP has another length than the encoded token.", field="-otp")
    token = bytes(a ^ b for a, b in zip(mixed, otp.encode(), strict=True))
    if not token.isascii() or not token.decode("ascii").isprintable():
        raise LocalError("the OTP is not the one that this token was encoded with.", field="-otp")
    return token.decode("ascii")


@click.command(cls=Command, context_settings=SETTINGS)
@_status
@pass_app
def rotate(app: App, status: bool) -> None:  # noqa: FBT001
    """Make a new key that encrypts the data from now on. Data under old keys stays readable and is re-encrypted.

    \b
    Examples:
      holdfast operator rotate
      holdfast operator rotate -status
    """
    with app.client() as client:
        shown = client.keys.status() if status else client.keys.rotate()
    _show_keys(app, shown)


@click.command("key-status", cls=Command, context_settings=SETTINGS)
@pass_app
def key_status(app: App) -> None:
    """Show the key that encrypts the data: its term, when it came, how often it was used, and the re-encryption.

    \b
    Example:
      holdfast operator key-status
    """
    with app.client() as client:
        _show_keys(app, client.keys.status())


@click.command("rotate-config", cls=Command, context_settings=SETTINGS)
@click.option("--interval", metavar="DURATION", help="Rotate when the key is so old, e.g. 90d; 0 for never.")
@click.option("--max-encryptions", type=click.IntRange(min=1), help="Rotate before the key was used so often.")
@click.option("--reencrypt/--no-reencrypt", default=None, help="Bring old data under the new key.")
@click.option("--rate", type=click.IntRange(min=1), help="Records that are re-encrypted in a second at most.")
@click.option("--keep-terms", type=click.IntRange(min=1), help="Newest keys that are kept when nothing needs them.")
@pass_app
def rotate_config(app: App, /, interval: str | None, **changes: Any) -> None:
    """Change when the key of the data is replaced by itself. What is not named stays; without flags it is shown.

    \b
    Examples:
      holdfast operator rotate-config -interval=90d
      holdfast operator rotate-config -rate=100 -keep-terms=5
    """
    with app.client() as client:
        if interval is None and all(value is None for value in changes.values()):
            shown = client.keys.status()
        else:
            age = None if interval is None else parse_duration(interval, field="-interval")
            shown = client.keys.configure_rotation(interval=age, **changes)
    _show_keys(app, shown)


def _show_keys(app: App, status: KeyStatus) -> None:
    policy, at = status.policy, status.reencryption
    facts: dict[str, Any] = {
        "term": status.term,
        "install_time": timestamp(status.install_time),
        "encryptions": status.encryptions,
        "terms": status.terms,
        "oldest_term": status.oldest_term,
        "interval_seconds": policy.interval_s,
        "max_encryptions": policy.max_encryptions,
        "reencrypt": policy.reencrypt,
        "rate": policy.rate,
        "keep_terms": policy.keep_terms,
        "reencryption": at
        and {
            "target_term": at.target_term,
            "finished": at.finished,
            "scanned": at.scanned,
            "rewritten": at.rewritten,
            "start_time": timestamp(at.start_time),
            "finish_time": timestamp(at.finish_time),
        },
    }
    rows: list[tuple[str, Any]] = [
        ("Key Term", status.term),
        ("Install Time", status.install_time or "unknown"),
        ("Encryptions (at most)", status.encryptions),
        ("Terms kept", f"{status.terms}, from {status.oldest_term}"),
        ("Rotation by age", f"{policy.interval_s} s" if policy.interval_s else "off"),
        ("Rotation by count", policy.max_encryptions),
    ]
    if at is None:
        rows.append(("Re-encryption", "none so far" if policy.reencrypt else "off"))
    else:
        state = "finished" if at.finished else "under way"
        rows.append(
            ("Re-encryption", f"to term {at.target_term} {state}: {at.scanned} records seen, {at.rewritten} rewritten")
        )
    app.show(facts, lambda: table(("Key", "Value"), rows))


def _files(names: str) -> list[str]:
    """The contents of the named files as text: armored as it is, else base64."""
    found = []
    for name in (part.strip() for part in names.split(",") if part.strip()):
        try:
            raw = Path(name.removeprefix("@")).read_bytes()
        except OSError as error:
            raise LocalError(f"{name} cannot be read: {error.strerror}.", field="-pgp-keys") from None
        if len(raw) > _PGP_FILE_BYTES_MAX:
            raise LocalError(f"{name} is too large for a public key.", field="-pgp-keys")
        text = raw.decode("ascii") if raw.isascii() else base64.b64encode(raw).decode()
        found.append(text.strip())
    return found


def _share(app: App, given: str | None, nonce: str) -> str:
    if given is None:
        return hidden(f"Operation nonce: {nonce}\nUnseal Key (will be hidden): ")
    if given == "-":
        return sys.stdin.readline().strip()
    app.warn("an unseal key is on the command line, where others can see it. Leave it out to be asked for it.")
    return given


COMMANDS = (rekey, generate_root, rotate, key_status, rotate_config)
