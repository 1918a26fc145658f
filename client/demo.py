"""The demonstration cluster behind `make run`: real nodes on loopback, initialised, unsealed, used and watched.

It stands in for the people and the service manager of a real deployment: it keeps the shares (a real cluster never
does), unseals at start, and starts a node again that was killed. A node started again after that stays sealed, as it
would in production, until its shares are given.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from holdfast.client import errors
from holdfast.client.local import LOOPBACK, LocalCluster, LocalClusterError, LocalNode, free_ports

SHARES_FILE = "INSECURE-shares.txt"
ENVIRONMENT_FILE = "env.sh"
RESTART_AFTER_S = 3.0
REFRESH_S = 1.0


@click.command()
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="How many nodes.")
@click.option(
    "--directory", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True, help="Where it is kept."
)
def main(nodes: int, directory: Path) -> None:
    """Start a demonstration cluster on loopback and follow it until Ctrl-C.

    Example: python -m holdfast.client.demo --nodes 5
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _cluster(directory, nodes) as cluster:
            demo = Demo(cluster)
            with contextlib.suppress(KeyboardInterrupt):
                demo.bring_up()
                demo.follow()
            print(
                f"\nstopping; the data stays in {directory}/ and `make run` resumes it (rm -r {directory} forgets it)"
            )
    except KeyboardInterrupt:
        pass
    except (LocalClusterError, errors.HoldfastError) as problem:
        print(f"the demonstration could not go on: {problem}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def _cluster(directory: Path, nodes: int) -> Iterator[LocalCluster]:
    if LocalCluster.exists(directory):
        cluster = LocalCluster.open(directory)
        print(f"resuming the demonstration cluster of {len(cluster.nodes)} nodes in {directory}/")
    else:
        print(f"making a demonstration cluster of {nodes} nodes in {directory}/ (certificates, configurations)")
        cluster = LocalCluster.create(directory, nodes, ports=_ports(nodes))
    with cluster:
        cluster.start()
        cluster.wait_listening()
        yield cluster


def _ports(nodes: int) -> list[int]:
    """8200, 8201, 8202 for the first node, 8210 ... for the second, and so on; others where one of them is taken."""
    wanted = [8200 + 10 * node + port for node in range(nodes) for port in range(3)]
    with contextlib.ExitStack() as stack:
        try:
            for port in wanted:
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((LOOPBACK, port))
        except OSError:
            return free_ports(len(wanted))
    return wanted


@dataclass(frozen=True)
class NodeState:
    """What the screen shows of a node."""

    node_id: str
    address: str
    pid: str
    role: str
    seal: str


class Demo:
    """The one who runs the demonstration."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.shares_file = cluster.directory / SHARES_FILE
        self.environment_file = cluster.directory / ENVIRONMENT_FILE
        self._ended_at: dict[str, float] = {}

    def bring_up(self) -> None:
        """Initialise where it is needed, unseal every node, use it once, and say how to go on."""
        initialized = self.shares_file.exists()
        if not initialized:
            self._initialize()
        shares = self.shares_file.read_text().split()
        for node in self.cluster.nodes:
            self.cluster.unseal(node, shares)
            print(f"{node.node_id} unsealed")
        print(f"{self.cluster.wait_serving().node_id} leads")
        if not initialized:
            certs = self.cluster.certs_dir
            self._show("operator", "pki", "import-ca", f"-cert={certs / 'ca.crt'}", f"-key={certs / 'ca.key'}")
            self._show("kv", "put", "secret/myapp/db", "username=admin", "password=correct-horse-battery-staple")
        self._show("kv", "get", "secret/myapp/db")
        self._show("operator", "raft", "list-peers")
        self._print_lines_to_paste()

    def follow(self) -> None:
        """Show the nodes' states until interrupted, and start ended nodes again."""
        interactive = sys.stdout.isatty()
        shown: list[NodeState] = []
        while True:
            self._restart_ended_nodes()
            states = [self._state(node) for node in self.cluster.nodes]
            if states != shown:
                if interactive and shown:
                    print(f"\x1b[{len(states) + 1}A\x1b[J", end="")
                print(_table(states), flush=True)
                shown = states
            time.sleep(REFRESH_S)

    def _initialize(self) -> None:
        try:
            made = self.cluster.initialize(shares=5, threshold=3)
        except errors.AlreadyInitialized:
            raise LocalClusterError(
                f"{self.shares_file} is gone, so this demonstration cannot unseal its nodes; "
                f"rm -r {self.cluster.directory} starts over"
            ) from None
        _write_private(self.shares_file, "".join(f"{share}\n" for share in made.shares))
        environment = {
            "HOLDFAST_ADDR": ",".join(self.cluster.addresses),
            "HOLDFAST_CACERT": str(self.cluster.ca_file.resolve()),
            "HOLDFAST_TOKEN": made.root_token,
            **{f"NODE_{number}": node.api_address for number, node in enumerate(self.cluster.nodes, 1)},
        }
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
        path = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n'
        _write_private(self.environment_file, exports + path)
        print("\ninitialised with 5 shares, any 3 of which unseal a node; they are shown this once:\n")
        for number, share in enumerate(made.shares, 1):
            print(f"  share {number}  {share}")
        print(f"\n  root token  {made.root_token}\n")
        _warn(
            f"WARNING: for this demonstration ONLY, shares and root token are also kept in {self.cluster.directory}/ "
            "(mode 0600).\nOn a real cluster give each share to another person and store none of them beside the data."
        )

    def _show(self, *arguments: str) -> None:
        """Run the command that a user would type, and show it with what it prints."""
        print(f"\n$ holdfast {shlex.join(arguments)}", flush=True)
        environment = {**os.environ, **_exports(self.environment_file)}
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "holdfast.client.cli.main", *arguments], env=environment, check=False
        )

    def _print_lines_to_paste(self) -> None:
        victim = self.cluster.nodes[0]
        directory = self.cluster.directory
        print(f"""
To talk to it, paste in another terminal, in this folder:

  . {self.environment_file}
  holdfast kv put secret/myapp/api key=s3cr3t
  holdfast kv get secret/myapp/api
  holdfast operator raft list-peers

Kill a node, see the others go on, and unseal it once it has been started again (after {RESTART_AFTER_S:.0f} s):

  kill -9 $(cat {directory}/{victim.node_id}/pid)
  holdfast kv get secret/myapp/api
  head -3 {self.shares_file} | while read share; do
    echo "$share" | holdfast operator unseal -address={victim.api_address} -; done

Ctrl-C stops the cluster.
""")

    def _restart_ended_nodes(self) -> None:
        now = time.monotonic()
        for node in self.cluster.nodes:
            if node.running:
                self._ended_at.pop(node.node_id, None)
            elif now - self._ended_at.setdefault(node.node_id, now) >= RESTART_AFTER_S:
                node.start()

    def _state(self, node: LocalNode) -> NodeState:
        pid = str(node.process.pid) if node.running and node.process is not None else "-"
        if not node.running:
            return NodeState(node.node_id, node.api_address, pid, "down", f"starts again in {RESTART_AFTER_S:.0f} s")
        try:
            with self.cluster.client(node.api_address, timeout_s=REFRESH_S) as client:
                status = client.sys.seal_status()
        except errors.HoldfastError:
            return NodeState(node.node_id, node.api_address, pid, "starting", "no answer yet")
        if not status.initialized:
            return NodeState(node.node_id, node.api_address, pid, status.role, "not initialised")
        seal = f"SEALED ({status.progress} of {status.threshold} shares given)" if status.sealed else "unsealed"
        return NodeState(node.node_id, node.api_address, pid, status.role, seal)


def _table(states: Sequence[NodeState]) -> str:
    rows = [f"{state.node_id:<8} {state.address:<16} {state.pid:<8} {state.role:<10} {state.seal}" for state in states]
    return "\n".join([f"{time.strftime('%H:%M:%S')} {'address':<16} {'pid':<8} {'role':<10} seal", *rows])


def _exports(file: Path) -> dict[str, str]:
    lines = (line.removeprefix("export ") for line in file.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line.startswith("HOLDFAST_"))
    return {name: shlex.split(value)[0] for name, _, value in pairs}


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _warn(text: str) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(f"\x1b[1;31m{text}\x1b[0m" if colour else text)
    print()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
