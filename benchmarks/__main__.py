"""`python -m holdfast.benchmarks requests` and `... consensus`. See DESIGN.md."""

from __future__ import annotations

import click

from holdfast.benchmarks.consensus import consensus
from holdfast.benchmarks.requests import requests


@click.group()
def main() -> None:
    """Measure Holdfast on this machine. Nothing is asserted: compare runs made together.

    \b
    Examples:
      python -m holdfast.benchmarks requests
      python -m holdfast.benchmarks consensus --format=json
    """


main.add_command(requests)
main.add_command(consensus)

if __name__ == "__main__":
    main()
