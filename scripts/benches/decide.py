"""How long a decision takes, and what it costs: four, seven and ten members, real processes, noise, SQLite.

Figures (docs/performance.md explains them): the latency from a filed intent to its stored permit beside the
same fan-out echoed over the same connections, taken by turns in one run; decisions per second; CPU seconds of a
voter per vote beside what cannot be avoided; CPU seconds of the requester's process per decision beside those
that it spends on the echo.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.coalition import build, chains, intent, names, rules
from benches.figures import figure, lines, machine, percentile

AIM_LATENCY = 2.5
AIM_CPU = 3.0
SIZES = (4, 7, 10)
MANY_MEMBERS = 4
"""The rate is taken with the smallest coalition."""


class Cluster:
    """The processes of one coalition. Ends those that it started, by their ids."""

    def __init__(self, members: int, directory: Path, chain_count: int, certificate: str) -> None:
        self.members = members
        self._processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "benches.decide_node",
                    str(index),
                    str(members),
                    str(directory),
                    str(chain_count),
                    certificate,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PY_YAMUX_RELEASE_ON_READ": "0"},
            )
            for index in range(members)
        ]
        said = [self.hear(index) for index in range(members)]
        self.tls_ports = [entry["tls"] for entry in said]
        everybody = names(members)
        peers = [
            {"name": f"spiffe://{name}/node/n1", "key": entry["key"], "addresses": entry["addresses"]}
            for name, entry in zip(everybody, said, strict=True)
        ]
        for index in range(members):
            self.tell(index, do="peers", peers=[p for i, p in enumerate(peers) if i != index])
        for index in range(members):
            self.hear(index)
        # A node votes on no t before its start plus five seconds.
        time.sleep(6)

    def tell(self, index: int, **command: Any) -> None:
        pipe = self._processes[index].stdin
        if pipe is None:
            raise SystemExit("a node without a pipe")
        pipe.write(json.dumps(command) + "\n")
        pipe.flush()

    def hear(self, index: int) -> dict[str, Any]:
        pipe = self._processes[index].stdout
        line = pipe.readline() if pipe is not None else ""
        if not line:
            raise SystemExit(f"node {index} has gone")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, index: int, **command: Any) -> dict[str, Any]:
        self.tell(index, **command)
        return self.hear(index)

    def cpu(self) -> tuple[float, list[float]]:
        """CPU seconds of the requester's process, and of every other voter's."""
        requester, *voters = (self.ask(index, do="cpu")["cpu"] for index in range(self.members))
        return requester, voters

    def close(self) -> None:
        for index, process in enumerate(self._processes):
            if process.poll() is None:
                try:
                    self.tell(index, do="quit")
                except (BrokenPipeError, ValueError):
                    process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


def certificate(directory: Path) -> str:
    """A throw-away certificate for the comparison with plain TLS."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / "tls.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return str(path)


def unavoidable(rounds: int = 300) -> dict[str, float]:
    """CPU seconds of what one vote cannot do without: two verifications, one signature, one policy evaluation."""
    from comity.attestation.policy_engine import ColumnFacts, ContextFacts, PolicyRequest, evaluate
    from comity.attestation.policy_rules import compile_rules
    from comity.attestation.verification import verify

    world = build(4)
    member = names(4)[0]
    leaves, records = chains(world, member, 1)
    world.tell(*records)
    record = intent(world, member, leaves[0], 0, "floor")
    directory = world[member].holdings.directory
    began = time.process_time()
    for _ in range(rounds):
        verify(record, directory)
    verifying = (time.process_time() - began) / rounds
    message = bytes(400)
    signer = world[member].node.signer
    began = time.process_time()
    for _ in range(rounds):
        signer.sign(message)
    signing = (time.process_time() - began) / rounds
    compiled = compile_rules(rules())
    request = PolicyRequest(
        subject=f"spiffe://{member}/automation/0",
        member=member,
        kind="automation",
        asset=f"{member}/plain/a",
        writer=member,
        realm="production",
        classes=("data-steward",),
        data_classes=("plain",),
        columns=(
            *(ColumnFacts(name, "plain", True) for name in ("time", "status")),
            *(ColumnFacts(name, "", False) for name in ("inst", "age")),
        ),
        context=ContextFacts(purpose="survival_study", tier=0, fresh=False, weight=600_000, ticket=False),
    )
    began = time.process_time()
    for _ in range(rounds):
        evaluate(compiled, request)
    policy = (time.process_time() - began) / rounds
    return {"verify": verifying, "sign": signing, "policy": policy, "total": 2 * verifying + signing + policy}


def measure(members: int, rounds: int, many: int, directory: Path, pem: str, progress: Any) -> dict[str, Any]:
    """Everything that one coalition of that size can say."""
    quorum = 2 * members // 3 + 1
    (directory / str(members)).mkdir()
    progress(f"starting {members} nodes")
    cluster = Cluster(members, directory / str(members), rounds + many + 20, pem)
    try:
        progress(f"n={members}: {rounds} decisions and echoes by turns")
        before = cluster.cpu()
        began = time.perf_counter()
        said = cluster.ask(0, do="latency", rounds=rounds, first=0, quorum=quorum)
        said["wall"] = time.perf_counter() - began
        both = spent(before, cluster.cpu())
        before = cluster.cpu()
        cluster.ask(0, do="echoes", count=rounds, quorum=quorum)
        echo = spent(before, cluster.cpu())
        for who, with_decisions, alone in zip(("requester", "voter"), both, echo, strict=True):
            said[f"{who}_echo_cpu"] = alone / rounds
            # As many echoes were between the decisions as decisions.
            said[f"{who}_cpu"] = with_decisions / (rounds + 10) - alone / rounds
        progress(f"n={members}: plain TLS")
        said["tls"] = cluster.ask(0, do="tls", ports=cluster.tls_ports[1:], rounds=rounds, quorum=quorum)[
            "times"
        ]
        if many:
            progress(f"n={members}: {many} decisions, 16 at once")
            said["many"] = cluster.ask(0, do="many", count=many, first=rounds + 10, at_once=16, quorum=quorum)
    finally:
        cluster.close()
    return said


def spent(before: tuple[float, list[float]], after: tuple[float, list[float]]) -> tuple[float, float]:
    """CPU seconds between two readings: the requester's, and those of the median voter."""
    voters = [b - a for a, b in zip(before[1], after[1], strict=True)]
    return after[0] - before[0], statistics.median(voters)


def figures_of(measured: dict[int, dict[str, Any]], floor: dict[str, float]) -> list[dict[str, Any]]:
    """The figures with their floors and aims."""
    four, seven, ten = (measured[members] for members in SIZES)
    cpu_floor = seven["voter_echo_cpu"] + floor["total"]
    voter = seven["voter_cpu"]
    return [
        figure(
            "latency_p50_n4",
            statistics.median(four["decide"]),
            "s",
            statistics.median(four["echo"]),
            AIM_LATENCY,
        ),
        figure(
            "latency_p50_n7",
            statistics.median(seven["decide"]),
            "s",
            statistics.median(seven["echo"]),
            AIM_LATENCY,
        ),
        figure(
            "latency_p99_n7",
            percentile(seven["decide"], 0.99),
            "s",
            percentile(seven["echo"], 0.99),
            AIM_LATENCY,
        ),
        figure(
            "latency_p50_n7_tls",
            statistics.median(seven["decide"]),
            "s",
            statistics.median(seven["tls"]),
            None,
        ),
        figure(
            "latency_p50_n10",
            statistics.median(ten["decide"]),
            "s",
            statistics.median(ten["echo"]),
            AIM_LATENCY,
        ),
        figure("throughput_n4", four["many"]["decide"], "1/s", four["many"]["echo"], AIM_LATENCY, rate=True),
        figure("voter_cpu_n7", voter, "s", cpu_floor, AIM_CPU),
        figure("requester_cpu_n7", seven["requester_cpu"], "s", seven["requester_echo_cpu"], None),
    ]


def machine_of(
    rounds: int, load: float, floor: dict[str, float], measured: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """Where it was measured, and how far the single measurements lie apart (least, median, most)."""
    spreads = {f"{what}_n{n}": said[what] for n, said in measured.items() for what in ("decide", "echo")}
    spreads["tls_n7"] = measured[7]["tls"]
    return machine(load, rounds, spreads) | {
        "floor_parts": {name: round(value, 7) for name, value in floor.items()}
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench decide", description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--rounds", type=int, default=200, help="decisions per latency figure")
    parser.add_argument("--many", type=int, default=200, help="decisions per rate figure")
    options = parser.parse_args()

    def progress(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        pem = certificate(directory)
        load = os.getloadavg()[0]
        measured = {
            members: measure(
                members,
                options.rounds,
                options.many if members == MANY_MEMBERS else 0,
                directory,
                pem,
                progress,
            )
            for members in SIZES
        }
        floor = unavoidable()
    figures = figures_of(measured, floor)
    described = machine_of(options.rounds, load, floor, measured)
    if not options.json:
        print(lines(figures))
    print(json.dumps({"bench": "decide", "machine": described, "figures": figures}))


if __name__ == "__main__":
    main()
