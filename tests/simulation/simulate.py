"""Run many simulated lives, in several processes: `make simulate SEEDS=20000`, or SEEDS=17:17 for one.

Progress is printed as it goes. The first seed that breaks a promise ends the run with its trace (exit 1); otherwise a
summary says what occurred.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from support.sim_runs import chosen, live, missing, quiet, summary

SEEDS_IN_A_TASK = 10
REPORT_EVERY_S = 5.0


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    quiet()


def _task(first: int, last: int) -> tuple[Counter[str], str]:
    """What a few seeds add up to, or the trace of the first that fails."""
    try:
        return live(range(first, last)), ""
    except AssertionError as error:
        return Counter(), str(error)


class Run:
    """One run over many seeds."""

    def __init__(self, seeds: range, processes: int) -> None:
        self._seeds = seeds
        self._processes = processes
        self._began_s = self._reported_s = time.monotonic()
        self.total: Counter[str] = Counter()
        self.failure = ""

    def go(self) -> None:
        """Run all seeds, or up to the first failure."""
        tasks = self._tasks()
        running: set[Future[tuple[Counter[str], str]]] = set()
        with ProcessPoolExecutor(self._processes, initializer=_prepare) as pool:
            try:
                while not self.failure:
                    while len(running) < 2 * self._processes and (task := next(tasks, None)) is not None:
                        running.add(pool.submit(_task, *task))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        counts, failure = future.result()
                        self.total.update(counts)
                        self.failure = self.failure or failure
                    self._report()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _tasks(self) -> Iterator[tuple[int, int]]:
        for first in range(self._seeds.start, self._seeds.stop, SEEDS_IN_A_TASK):
            yield first, min(first + SEEDS_IN_A_TASK, self._seeds.stop)

    def _report(self) -> None:
        now_s, done = time.monotonic(), self.total["schedules"]
        if done and (now_s - self._reported_s >= REPORT_EVERY_S or done == len(self._seeds)):
            self._reported_s = now_s
            left_s = (now_s - self._began_s) / done * (len(self._seeds) - done)
            rate = done / (now_s - self._began_s)
            print(f"{done:,} of {len(self._seeds):,} seeds, {rate:.1f} a second, {_time(left_s)} left", flush=True)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="?", default="1000", help="how many, or first:last")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    run = Run(chosen(arguments.seeds), arguments.processes)
    stopped = False
    try:
        run.go()
    except KeyboardInterrupt:
        stopped = True
    if run.failure:
        print(run.failure)
        return 1
    print(*summary(run.total), sep="\n")
    if run.total["schedules"] >= 300 and (absent := missing(run.total)):
        print(f"did not occur: {', '.join(absent)}")
        return 1
    return 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
