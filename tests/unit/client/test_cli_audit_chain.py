"""What `holdfast audit verify` sees in the lines themselves."""

from pathlib import Path

from holdfast.client.cli.audit import _Chain
from holdfast.core.plugin.auditing import Chain, chain_mac


def test_a_member_added_behind_the_mac_is_seen(tmp_path: Path) -> None:
    line = Chain(chain_mac(b"k" * 32)).line(b'{"request":{"path":"a"}}')
    file = tmp_path / "audit.log"
    for text, problems in ((line, 0), (line[:-1] + b',"request":{"path":"b"}}', 1), (line + b" ", 1)):
        file.write_bytes(text + b"\n")
        chain = _Chain()
        chain.read(file)
        assert len(chain.problems) == problems
