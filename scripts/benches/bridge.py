"""What governing costs a step of Dagster: the same job governed and not, by turns.

Four organizations' nodes, each a process started by `comity node start`, over libp2p on loopback. The job's
step reads a Parquet file and writes one of the same size, in a new process each time, with an instance of
Dagster that keeps its runs and events in SQLite. Governed, it measures its code and environment, has its
intent decided by the four, has its input verified before it is parsed, records start and actuation, and lays
what vouches for it beside the file. The floor is the same step with an IO manager that writes the same bytes
as durably. Each run is another intent; nothing is remembered from one to the next.

Beside it: runs that Dagster's daemon launches through the gate, and the staging of a version by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benches import bridge_launched, bridge_staging
from benches.coalition import names, rules
from benches.figures import figure, lines, machine
from comity.node.client import NodeClient, NodeError
from comity.node.credentialing import Wish, issued
from comity.node.home import Home
from comity.protocol.limits import START_MARGIN_S
from houses import draft, hand_of, join, make_member, short_folder, sign
from world import policy_body, taxonomy_body

AIM: Final = 1.25
MEMBERS: Final = 4
SIZES: Final = {"1mb": 1_000_000, "100mb": 100_000_000}
READY_S: Final = 120.0
LOOK_EVERY_S: Final = 0.1


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Coalition:
    """Four homes and the processes of their nodes. Ends those that it started, by their ids."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.homes = [
            make_member(place, name, listen=f"127.0.0.1:{port}")
            for name, port in zip(names(MEMBERS), free_ports(MEMBERS), strict=True)
        ]
        file = draft(self.homes, policy_body(rules()), taxonomy_body())
        for home in self.homes:
            file = sign(file, home)
        for home in self.homes:
            join(file, home)
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start the nodes, and wait until all are connected and vote."""
        program = str(Path(sys.executable).with_name("comity"))
        for home in self.homes:
            self._processes.append(
                subprocess.Popen(
                    [program, "node", "start", "--home", str(home.path), "--json"],
                    stdout=subprocess.PIPE,
                    stderr=(self._place / f"{home.path.name}.log").open("w"),
                    text=True,
                )
            )
        for process in self._processes:
            line = process.stdout.readline() if process.stdout is not None else ""
            if '"ready"' not in line:
                raise SystemExit(f"a node is not ready: {line}")
        for home in self.homes:
            self._until(lambda said: said["reachable"] == MEMBERS, home, "is not connected")
            self._until(lambda said: said["now"] > said["started"] + START_MARGIN_S, home, "does not vote")

    def equip(self, home: Home) -> None:
        """Publish the credential under which the node asks for automation."""
        wish = Wish("node/n1", "automation", ("data-steward",), node_key=True, assets=("**",))
        record, _ = issued(hand_of(home), wish)
        NodeClient.of_home(home.path, "operator").submit_record(record.encoded())

    def _until(self, holds: Callable[[Any], bool], home: Home, what: str) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                if holds(NodeClient.of_home(home.path, "reader").status()):
                    return
            except NodeError:
                pass  # not up yet: asked again until the deadline
            time.sleep(LOOK_EVERY_S)
        raise SystemExit(f"the node of {home.path.name} {what} after {READY_S:.0f} s")

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


class Jobs:
    """Runs of the job, governed under one home and not, each kind with a folder and an instance of its own."""

    def __init__(self, place: Path, home: Home) -> None:
        self._place = place
        self._home = home

    def run(self, kind: str, asset: str, size: int) -> dict[str, Any]:
        base, instance = self._place / f"{kind}-files", self._place / f"{kind}-dagster"
        instance.mkdir(exist_ok=True)
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "benches.bridge_job", kind, asset, str(size)),
                *(str(base), str(instance), "--home", str(self._home.path)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(
                f"{kind} {asset} of {size} bytes failed:\n{done.stderr[-4000:]}{done.stdout[-4000:]}"
            )
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


def measure(jobs: Jobs, size: int, rounds: int, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of the step and of the run, governed and plain, by turns."""
    times: dict[str, list[float]] = {
        f"{what}_{kind}": [] for what in ("step", "run") for kind in ("governed", "plain")
    }
    for kind in ("plain", "governed"):
        progress(f"{size} bytes: the input, {kind}, and one run before those that count")
        jobs.run(kind, "source", size)
        jobs.run(kind, "made", size)
    for number in range(rounds):
        progress(f"{size} bytes: {number + 1} of {rounds}")
        said = {kind: jobs.run(kind, "made", size) for kind in ("plain", "governed")}
        if said["plain"]["digest"] != said["governed"]["digest"]:
            raise SystemExit("governed and plain have not written the same bytes")
        for kind, entry in said.items():
            times[f"step_{kind}"].append(entry["step"])
            times[f"run_{kind}"].append(entry["run"])
    return times


def figures_of(taken: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    def of(name: str, what: str, size: str, aim: float | None) -> dict[str, Any]:
        governed, plain = (statistics.median(taken[size][f"{what}_{kind}"]) for kind in ("governed", "plain"))
        return figure(name, governed, "s", plain, aim)

    steps = [of(f"step_{size}", "step", size, AIM) for size in taken]
    return steps + [of(f"run_{size}", "run", size, None) for size in taken]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench bridge", description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--rounds", type=int, default=10, help="runs of each kind and size")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES), help="of the output")
    options = parser.parse_args(arguments)

    def progress(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    load = os.getloadavg()[0]
    with short_folder() as place:
        coalition = Coalition(place)
        try:
            progress(f"starting {MEMBERS} nodes")
            coalition.start()
            coalition.equip(coalition.homes[0])
            jobs = Jobs(place, coalition.homes[0])
            taken = {name: measure(jobs, SIZES[name], options.rounds, progress) for name in options.sizes}
            launched = bridge_launched.measure(place, coalition.homes[0], options.rounds, progress)
        finally:
            coalition.close()
        staging = bridge_staging.measure(place, options.rounds, progress)
    figures = figures_of(taken) + bridge_launched.figures_of(launched) + bridge_staging.figures_of(staging)
    spreads = {f"{what}_{size}": values for size, times in taken.items() for what, values in times.items()}
    spreads |= launched | staging
    if not options.json:
        print(lines(figures))
    print(
        json.dumps({"bench": "bridge", "machine": machine(load, options.rounds, spreads), "figures": figures})
    )


if __name__ == "__main__":
    main()
