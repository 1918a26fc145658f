"""A token of SoftHSM 2 with an AES key in it, in a folder of its own. Its tests fail where it is missing."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
PIN, SO_PIN = "1234-abcd", "5678-efgh"

_MAKE_KEY = """
import pkcs11, sys
module, token, pin, key = sys.argv[1:]
with pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=pin) as session:
    session.generate_key(pkcs11.KeyType.AES, 256, label=key, store=True)
"""


@dataclass(frozen=True)
class SoftHsm:
    """environment: what a process needs to find it."""

    module: str
    token: str
    key: str
    environment: dict[str, str]
    tokens_dir: Path

    def make_key(self, label: str) -> None:
        subprocess.run(
            [sys.executable, "-c", _MAKE_KEY, self.module, self.token, PIN, label],
            env={**os.environ, **self.environment}, check=True,
        )  # fmt: skip


def make_softhsm(folder: Path, *, token: str = "holdfast", key: str = "seal") -> SoftHsm:
    """A new token with one key. Raises AssertionError when SoftHSM is not installed."""
    module = next((name for name in MODULES if Path(name).exists()), None)
    assert module is not None, "SoftHSM 2 is not installed: apt-get install softhsm2"
    tokens = folder / "tokens"
    tokens.mkdir(parents=True)
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {"SOFTHSM2_CONF": str(conf)}
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", token, "--pin", PIN, "--so-pin", SO_PIN],
        env={**os.environ, **environment}, check=True, capture_output=True,
    )  # fmt: skip
    hsm = SoftHsm(module, token, key, environment, tokens)
    hsm.make_key(key)
    return hsm
