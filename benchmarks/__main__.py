"""`python -m benchmarks`: all of them; `python -m benchmarks NAME`: one."""

from __future__ import annotations

import argparse
import asyncio
import time

from benchmarks import clients_list, dispatch, journal, log_flood, log_line, replication, transfer
from benchmarks.figures import Figure, table

BENCHMARKS = {
    "dispatch": dispatch.run,
    "log_line": log_line.run,
    "journal": journal.run,
    "clients_list": clients_list.run,
    "log_flood": log_flood.run,
    "transfer": transfer.run,
    "replication": replication.run,
}


def main() -> None:
    """Run what is asked for, one after the other, and print all figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures beside a limit or a peer.")
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="one benchmark; all of them by default")
    asked = parser.parse_args().name
    found: list[tuple[str, Figure]] = []
    for name in [asked] if asked else BENCHMARKS:
        began = time.monotonic()
        print(f"{name}: ", end="", flush=True)
        figures = asyncio.run(BENCHMARKS[name]())
        print(f"{time.monotonic() - began:.0f} s")
        found += [(name, figure) for figure in figures]
    print(f"\n{table(found)}\n\nratio = measured / beside; at a limit, up to 1.00 is good.")


if __name__ == "__main__":
    main()
