"""The mutants of tests/mutants stay what they are: each still fits the source, and the tests it names exist."""

import ast
import re
from pathlib import Path

import pytest
from mutants.catalogue import MUTANTS
from mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_source_exactly_once_and_leaves_it_readable(mutant: Mutant) -> None:
    ast.parse(mutant.applied(mutant.source(ROOT).read_text()))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_must_notice_a_mutant_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        function, _, parameter = name.partition("[")
        assert re.search(rf"^(async )?def {function}\(", (ROOT / file).read_text(), re.MULTILINE), test
        if parameter:
            assert (ROOT / file).with_name("scripts").joinpath(parameter.removesuffix("]") + ".txt").is_file(), test


def test_every_mutant_has_its_own_name() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 25
