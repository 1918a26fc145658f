"""What a mutant is, and how its tests are named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """A deliberate mistake. file: from the root of the tree. old: text that stands in it exactly once. tests: pytest's
    ids of those that must notice it, the likeliest first."""

    name: str
    harm: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the mistake in it. Raises AssertionError when it does not fit."""
        found = text.count(self.old)
        assert found == 1, f"{self.name}: the text to be replaced is in {self.file} {found} times, not once"
        assert self.new != self.old, self.name
        return text.replace(self.old, self.new)

    def source(self, root: Path) -> Path:
        """Its file in a tree."""
        return root / self.file


def scene(name: str) -> str:
    """The test that plays a golden scene."""
    return f"tests/simulation/test_raft_scripts.py::test_the_scene_goes_as_its_script_says[{name}]"


def safety(name: str) -> str:
    """A directed test of one machine's safety."""
    return f"tests/unit/raft/test_raft_safety.py::test_{name}"


def unit(file: str, name: str) -> str:
    """Another test of the consensus module."""
    return f"tests/unit/raft/test_raft_{file}.py::test_{name}"


def raft(file: str) -> str:
    """A source file of the consensus module."""
    return f"cluster/raft/{file}.py"
