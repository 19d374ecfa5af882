"""Run benchmarks one after another, each with the options it has by default, and print what they found.

Without a name all of them but ``million``, which takes many minutes. Each is a command of its own, with options for its
sizes: ``python -m benchmarks.hanoi --help``.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from types import ModuleType

from benchmarks import (
    contention,
    growth,
    hanoi,
    hundred,
    landing,
    million,
    pour,
    processes,
    refinery,
    sandbox,
    steps,
    store,
    town,
    worktrees,
)
from benchmarks.common import add_common, report, rows, workplace

ALL: dict[str, ModuleType] = {
    "store": store,
    "processes": processes,
    "contention": contention,
    "growth": growth,
    "hanoi": hanoi,
    "sandbox": sandbox,
    "pour": pour,
    "town": town,
    "steps": steps,
    "worktrees": worktrees,
    "refinery": refinery,
    "hundred": hundred,
    "landing": landing,
    "million": million,
}
LONG = ("million",)


def main() -> None:
    """Measure, and print tables or JSON."""
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(ALL)}")
    add_common(parser)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ALL]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(ALL)}")
    found: dict[str, list[dict[str, object]]] = {}
    with workplace(arguments.keep) as place:
        for name in arguments.names or [name for name in ALL if name not in LONG]:
            own = ArgumentParser()
            ALL[name].add(own)
            figures = ALL[name].measure(place / name, own.parse_args([]))
            if arguments.json:
                found[name] = rows(figures)
            else:
                print(f"\n{name}: {(ALL[name].__doc__ or '').splitlines()[0]}")
                report(figures)
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
