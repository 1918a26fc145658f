"""The README, as a newcomer follows it: `make run` in one terminal, its blocks pasted into another."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BRING_UP_S = 120.0


def block(name: str) -> str:
    """The shell block of the README that stands after `<!-- try: name -->`."""
    found = re.search(rf"<!-- try: {name} -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, f"README.md has no block '{name}'"
    return found[1]


class Demonstration:
    """`make run` without the installation: the process, and everything it has printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "holdfast.client.demo"], cwd=folder, stdout=sink, stderr=sink
            )

    def printed(self) -> str:
        return self.output.read_text()

    def wait_for(self, pattern: str, deadline_s: float = BRING_UP_S) -> str:
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if found := re.search(pattern, self.printed()):
                return found[0]
            assert self.process.poll() is None, self.printed()
            time.sleep(0.1)
        raise AssertionError(f"{pattern!r} not printed within {deadline_s} s:\n{self.printed()}")

    def paste(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run lines as a newcomer's shell would, in the folder of the demonstration."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST", "VAULT"))}
        environment["HOME"] = str(self.folder)
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.folder, capture_output=True, text=True, timeout=120, check=False, env=environment,
        )  # fmt: skip

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def demonstration(tmp_path: Path) -> Iterator[Demonstration]:
    demo = Demonstration(tmp_path)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.interrupt()


@pytest.mark.timeout(400)
def test_the_readme_works_as_typed(demonstration: Demonstration, tmp_path: Path) -> None:
    demonstration.wait_for(r"Ctrl-C stops the cluster")
    shown = demonstration.printed()
    assert len(re.findall(r"share \d  \S+", shown)) == 5
    assert "WARNING" in shown
    assert "admin" in shown
    for private in (".demo/INSECURE-shares.txt", ".demo/env.sh"):
        assert (tmp_path / private).stat().st_mode & 0o777 == 0o600

    used = demonstration.paste(block("use"))
    assert used.returncode == 0, used.stderr
    assert "s3cr3t" in used.stdout
    assert "correct-horse-battery-staple" in used.stdout
    assert used.stdout.count("node-") >= 3

    environment = ". .demo/env.sh\n"
    killed = demonstration.paste(environment + block("kill"))
    assert killed.returncode == 0, killed.stderr
    assert "still-here" in killed.stdout

    demonstration.wait_for(r"node-1 .*SEALED", 60)
    # `holdfast status` exits with 2 for the sealed node, on purpose; a newcomer's shell goes on.
    unsealed = demonstration.paste("set +e\n" + environment + block("unseal"))
    assert re.search(r"Sealed\s+true", unsealed.stdout), unsealed.stdout + unsealed.stderr
    assert re.search(r"Sealed\s+false", unsealed.stdout), unsealed.stdout + unsealed.stderr

    assert demonstration.interrupt() == 0
    again = Demonstration(tmp_path)
    try:
        again.wait_for(r"resuming[\s\S]*Ctrl-C stops the cluster")
        resumed = again.paste(environment + "holdfast kv get -field=key secret/myapp/api")
        assert resumed.stdout == "still-here", resumed.stderr
    finally:
        assert again.interrupt() == 0
    leaked = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert not leaked, "the demonstration left processes behind"
