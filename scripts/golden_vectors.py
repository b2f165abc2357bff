"""Compare the golden vectors with what the code writes, or rewrite them: `scripts/vectors [--write]`."""

from __future__ import annotations

import argparse

import golden


def main() -> int:
    """Return 0 where files and code agree."""
    parser = argparse.ArgumentParser(prog="scripts/vectors", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite the files: a change of the protocol")
    write = parser.parse_args().write
    problems = golden.differences()
    for problem in problems:
        print(problem)
    if write:
        golden.write()
        print(f"tests/vectors/records: {len(golden.files())} files, {len(problems)} changed")
        return 0
    if problems:
        print("Records are written in another way than before. If that is meant: scripts/vectors --write")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
