"""Scenes of the Raft paper and of its thesis, played by the product's own consensus machine: tests/simulation/scripts.

Each script shows what must happen, message by message. HOLDFAST_REWRITE_SCRIPTS=1 writes the traces anew (read the
difference before you keep it); what a script expects by name is checked in any case.
"""

import os
from pathlib import Path

import pytest
from support.golden.script import Mismatch, parse, play, render

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_scene_goes_as_its_script_says(path: Path) -> None:
    play(path, rewrite=bool(os.environ.get("HOLDFAST_REWRITE_SCRIPTS")))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_says_what_it_shows_and_expects_something_by_name(path: Path) -> None:
    """A trace alone could be rewritten without a thought."""
    text = path.read_text()
    assert text.startswith("# ")
    assert "\nexpect " in text
    assert render(parse(text)) == text


def test_a_scene_that_goes_otherwise_is_reported_and_can_be_rewritten(tmp_path: Path) -> None:
    script = tmp_path / "scene.txt"
    script.write_text("# A scene.\nnodes a b c\ncampaign a\n    a: something else\nexpect a role=follower\n")
    with pytest.raises(Mismatch, match=r"scene\.txt:3"):
        play(script, rewrite=False)
    play(script, rewrite=True)
    assert "a -> b  PreVote term=1 last=1@0" in script.read_text()
    play(script, rewrite=False)


def test_an_expectation_holds_in_a_rewrite_too(tmp_path: Path) -> None:
    script = tmp_path / "scene.txt"
    script.write_text("# A scene.\nnodes a b c\nexpect a role=leader\n")
    with pytest.raises(AssertionError, match="a has role=follower"):
        play(script, rewrite=True)
