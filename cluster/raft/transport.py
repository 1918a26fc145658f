"""pysyncobj's transport interface over the peer links: messages become bytes, node ids become pysyncobj's Nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from holdfast.cluster.peer.links import Links
from holdfast.cluster.raft import messages
from holdfast.cluster.raft.messages import Message


class LinksTransport(Transport):
    """Carries one node's messages. Opens nothing itself. `receive` raises MalformedMessage (a ValueError), which tells
    the links to drop the session."""

    def __init__(self, links: Links) -> None:
        super().__init__(None, None, [])  # type: ignore[no-untyped-call]
        self._links = links
        self._nodes: dict[str, Node] = {}
        self._encoded: tuple[Message, bytes] | None = None

    @property
    def ready(self) -> bool:
        """Always: the links come up when they can."""
        return True

    def node(self, node_id: str) -> Node:
        """The one Node of this id."""
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = Node(node_id)  # type: ignore[no-untyped-call]
        return node

    def dial(self, addresses: Mapping[str, str], guests: Collection[str]) -> None:
        """Keep sessions with these nodes (node id -> host:port) and no others; `guests` as in Links.set_peers."""
        self._links.set_peers(addresses, guests)

    def send(self, node: Node, message: Message) -> bool:
        """Queue a message; False when it was dropped."""
        if self._encoded is None or self._encoded[0] is not message:
            self._encoded = (message, messages.encode(message))
        return self._links.send(node.id, self._encoded[1])

    def receive(self, node_id: str, payload: bytes) -> None:
        """A payload from the links."""
        self._onMessageReceived(self.node(node_id), messages.decode(payload))  # type: ignore[no-untyped-call]

    def connected(self, node_id: str) -> None:
        """A session came up."""
        self._onNodeConnected(self.node(node_id))  # type: ignore[no-untyped-call]

    def disconnected(self, node_id: str) -> None:
        """A session went down."""
        self._onNodeDisconnected(self.node(node_id))  # type: ignore[no-untyped-call]

    def destroy(self) -> None:
        """Nothing: the links belong to the caller."""
