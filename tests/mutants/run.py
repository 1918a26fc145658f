"""Puts each mutant into a copy of the tree and runs the tests that must notice it: `make mutants`.

    python -m mutants.run [--only NAME,...] [--each] [--jobs 2] [--seeds 12]

Exit code 1 when a mutant survives, or when none of the tests named for it noticed it.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutants.catalogue import MUTANTS
from mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
SCENES = ("tests/simulation/test_raft_scripts.py",)
SIMULATION = ("tests/simulation/test_raft_simulation.py",)
ALL = ("tests/unit/raft", "tests/property/raft", *SCENES, *SIMULATION)
TIMEOUT_S = 300
PASSED, FAILED = 0, 1
"""Pytest's exit codes. Another one is no verdict: the mutant does not even load."""


@dataclass
class Verdict:
    """What became of a mutant. caught_by: the first test that noticed it; empty when none did. named: whether that is
    one of those named for it. scenes, simulation: whether these alone notice it; None when not asked."""

    mutant: Mutant
    caught_by: str
    named: bool
    seconds: float = 0.0
    scenes: bool | None = None
    simulation: bool | None = None

    @property
    def good(self) -> bool:
        return bool(self.caught_by) and self.named


class Copy:
    """A copy of the tree to put mutants into."""

    def __init__(self, folder: Path, *, seeds: int) -> None:
        self.root = folder / "tree"
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "__pycache__", ".*_cache", ".demo", ".hypothesis", "*.egg-info"
        )
        shutil.copytree(ROOT, self.root, symlinks=True, ignore=ignored)
        # Compiled once, and compared by content from then on: a mutant may come and go within the same second.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.root, quiet=2, invalidation_mode=mode)
        paths = [str(self.root / "src"), str(self.root / "tests")]
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOLDFAST_SIM_SEEDS": str(seeds),
        }
        self._environment.pop("HOLDFAST_REWRITE_SCRIPTS", None)

    def first_failure(self, tests: tuple[str, ...]) -> str:
        """Run tests until one fails; its id, empty when all pass."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
        command += ["--timeout", str(TIMEOUT_S // 3), *tests]
        try:
            ran = subprocess.run(
                command, cwd=self.root, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT_S,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{tests[0]} (did not end in {TIMEOUT_S} s)"
        if ran.returncode == PASSED:
            return ""
        failed = re.search(r"^FAILED (\S+)", ran.stdout, re.MULTILINE)
        if ran.returncode != FAILED or failed is None:
            raise RuntimeError(f"pytest gave no verdict:\n{ran.stdout}\n{ran.stderr}")
        return failed.group(1)

    def judge(self, mutant: Mutant, *, each: bool) -> Verdict:
        """Put a mutant in, run the tests, take it out."""
        source = mutant.source(self.root)
        text = source.read_text()
        source.write_text(mutant.applied(text))
        began_s = time.monotonic()
        try:
            caught_by = self.first_failure(mutant.tests)
            verdict = Verdict(mutant, caught_by, named=bool(caught_by))
            if not caught_by:
                verdict.caught_by = self.first_failure(ALL)
            verdict.seconds = time.monotonic() - began_s
            if each:
                verdict.scenes = bool(self.first_failure(SCENES))
                verdict.simulation = bool(self.first_failure(SIMULATION))
        finally:
            source.write_text(text)
        return verdict


def judged(mutants: list[Mutant], *, each: bool, jobs: int, seeds: int) -> Iterator[Verdict]:
    """The verdicts, as they come."""
    waiting: queue.SimpleQueue[Mutant | None] = queue.SimpleQueue()
    verdicts: queue.SimpleQueue[Verdict | Exception] = queue.SimpleQueue()
    for mutant in [*mutants, *[None] * jobs]:
        waiting.put(mutant)

    def work() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="holdfast-mutants-") as folder:
                copy = Copy(Path(folder), seeds=seeds)
                while (mutant := waiting.get()) is not None:
                    verdicts.put(copy.judge(mutant, each=each))
        except Exception as error:  # noqa: BLE001 - raised again where the verdicts are taken
            verdicts.put(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    for _ in mutants:
        verdict = verdicts.get()
        if isinstance(verdict, Exception):
            raise verdict
        yield verdict
    for worker in workers:
        worker.join()


def show(verdict: Verdict) -> None:
    """A row of the table."""
    noticed = "NOT BY A NAMED TEST" if verdict.caught_by else "SURVIVED"
    result = "caught" if verdict.good else noticed
    also = "".join(
        f" {name} {'yes' if caught else 'no'};"
        for name, caught in (("scenes", verdict.scenes), ("simulation", verdict.simulation))
        if caught is not None
    )
    test = verdict.caught_by.rpartition("/")[2] or "-"
    print(f"{verdict.mutant.name:44} {result:8} {verdict.seconds:6.1f} s {also} {test}", flush=True)
    if not verdict.good:
        print(f"    {verdict.mutant.file}: {verdict.mutant.harm}", flush=True)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--each", action="store_true", help="ask the scenes and the simulation on their own, too")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=12, help="of the simulation")
    chosen = parser.parse_args()
    parts = [part for part in chosen.only.split(",") if part]
    mutants = [mutant for mutant in MUTANTS if not parts or any(part in mutant.name for part in parts)]
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-mutants-") as folder:
        named = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        failing = Copy(Path(folder), seeds=chosen.seeds).first_failure(named)
        if failing:
            print(f"{failing} fails without any mutant")
            return 1
    verdicts = []
    for verdict in judged(mutants, each=chosen.each, jobs=chosen.jobs, seeds=chosen.seeds):
        show(verdict)
        verdicts.append(verdict)
    bad = sum(not verdict.good for verdict in verdicts)
    print(f"{len(verdicts)} mutants, {len(verdicts) - bad} caught, {time.monotonic() - began_s:.0f} s")
    return 1 if bad or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
