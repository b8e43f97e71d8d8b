"""Speed and memory, measured: `python -m bench [--quick] [--only NAME]` (docs/performance.md)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.measure import (
    ROOT,
    Figure,
    clean_up_when_terminated,
    details,
    progress,
    table,
    with_figures,
)

#: Name → (module, arguments, arguments with --quick).
BENCHES: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "accept": ("bench.accept", [], ["--seconds", "2"]),
    "drain": ("bench.drain", [], ["--events", "100000"]),
    "drain-late": ("bench.drain", ["--late"], ["--late", "--events", "100000"]),
    "close": ("bench.close", [], ["--contracts", "5000"]),
    "memory": ("bench.memory", [], ["--events", "500000"]),
}
WITHIN_S = 3_600


def measured(name: str, arguments: Sequence[str]) -> list[Figure]:
    """What a bench reports, run in a process of its own.

    Raises: SystemExit when it fails; TimeoutExpired when it takes longer than an hour.
    """
    module = BENCHES[name][0]
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        said, _ = child.communicate(timeout=WITHIN_S)
    except BaseException:
        child.terminate()
        child.wait(60)
        raise
    if child.returncode:
        raise SystemExit(f"{name} failed with {child.returncode}")
    return [Figure.from_plain(plain) for plain in json.loads(said.splitlines()[-1])]


def machine() -> dict[str, object]:
    """Where and with what the figures came about."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("duckdb", "psycopg", "granian", "sqlalchemy")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size and less")
    parser.add_argument("--only", action="append", choices=list(BENCHES), help="can be repeated")
    parser.add_argument("--page", type=Path, help="replace the figures in this Markdown page")
    parser.add_argument("--json", type=Path, help="write the figures with all notes here")
    options = parser.parse_args()
    clean_up_when_terminated()
    context = machine()
    figures: list[Figure] = []
    load: dict[str, float] = {}
    chosen = options.only or list(BENCHES)
    for number, name in enumerate(chosen, 1):
        progress(f"[{number}/{len(chosen)}] {name}")
        _, full, quick = BENCHES[name]
        load[name] = round(os.getloadavg()[0], 1)
        figures += measured(name, quick if options.quick else full)
        if options.json:
            plain = {
                "machine": context,
                "load_before": load,
                "figures": [figure.to_plain() for figure in figures],
            }
            options.json.write_text(json.dumps(plain, indent=1, default=str) + "\n")
    text = "\n\n".join(
        (
            ", ".join(f"{name} {value}" for name, value in context.items())
            + (", `--quick`." if options.quick else ", full size."),
            "Load average before each: "
            + ", ".join(f"{name} {value}" for name, value in load.items())
            + ".",
            table(figures),
            "\n".join(details(figures)),
        )
    )
    print(text)
    if options.page:
        options.page.write_text(with_figures(options.page.read_text(), text))


if __name__ == "__main__":
    main()
