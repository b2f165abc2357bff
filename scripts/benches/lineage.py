"""How fast a stranger verifies a bundle offline, beside nothing but the signatures in it.

The bundle is a pipeline of layers made by two of four organizations under the policies of `decide`, each asset
from two of the layer before: intents, evidence, asks, votes, permits, starts, actuations, credential chains. The
floor verifies the same signatures over the same bytes with PyNaCl, their keys known and nothing else looked at.
`verify_rate` is the level `signed`, which is what a signature says; `rejudge_rate` moreover judges every vote again.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import nacl.bindings

from benches.coalition import COLUMNS, build, names
from benches.figures import figure, lines, machine
from comity.attestation.exporting import export_bundle
from comity.attestation.offline import Report, verify_bundle
from comity.attestation.roots import Roots
from comity.protocol.bundle import Bundle
from comity.protocol.envelope import PAYLOAD_TYPE, pre_authentication_encoding
from comity.protocol.governance import Credential, Epoch, NodeCertificate
from comity.protocol.identifiers import sha256
from comity.protocol.records import decode_body
from stories import permit_of, share
from world import ENGINE, START, World

AIM: Final = 2.0
MEMBERS: Final = 4
WIDTH: Final = 8
"""Assets in a layer. Each is made from two of the layer before."""
ANOTHER_ENGINE: Final = sha256(b"an engine that cast none of these votes")
"""Under it nothing is judged again: the report stops at `signed`."""


def pipeline(layers: int) -> tuple[bytes, Roots, Bundle]:
    """A bundle of the last layer, encoded, with its roots."""
    world = build(MEMBERS)
    writers = names(MEMBERS)[:2]
    before: list[bytes] = []
    for layer in range(layers):
        name = writers[layer % 2]
        if layer:
            share(world, writers[1 - layer % 2], name)
        before = [_made(world, name, layer, index, before) for index in range(WIDTH)]
    holdings = world[writers[(layers - 1) % 2]].holdings
    bundle = export_bundle(before, holdings)
    genesis = world.genesis.id
    return bundle.encoded(), Roots(genesis, 0, genesis, "bench", START), bundle


def _made(world: World, name: str, layer: int, index: int, before: list[bytes]) -> bytes:
    organization = world[name]
    inputs = {before[index], before[(index + 1) % WIDTH]} if before else set[bytes]()
    intent = organization.intent(
        f"plain/l{layer}-{index}",
        inputs=tuple(inputs),
        columns=COLUMNS,
        run=f"run-{layer}",
        purpose="survival_study",
    )
    permit = permit_of(world, intent, organization.evidence(intent))
    return organization.actuate(permit).id


def signed_bytes(bundle: Bundle) -> list[tuple[bytes, bytes]]:
    """What was signed, with the signature before it as libsodium has it, and the key, for every signature."""
    from comity.attestation.signing import key_id

    keys: dict[bytes, bytes] = {}
    records = (*bundle.epochs, *bundle.records)
    for record in records:
        body = decode_body(record)
        if isinstance(body, Epoch):
            keys |= {key_id(key): key.value for member in body.members for key in member.keys}
        if isinstance(body, NodeCertificate | Credential):
            keys[key_id(body.key)] = body.key.value
    return [
        (each.value + pre_authentication_encoding(PAYLOAD_TYPE, record.header_bytes), keys[each.key])
        for record in records
        for each in record.signatures
    ]


def took(work: Callable[[], Any]) -> float:
    """CPU seconds: nothing here waits, and what else the machine does is no part of it. Starts without garbage."""
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(layers: int, rounds: int) -> tuple[dict[str, list[float]], Report, int, int]:
    """CPU seconds for the whole bundle, by turns: bare signatures, `signed`, `re-judged`."""
    data, roots, bundle = pipeline(layers)
    signed = signed_bytes(bundle)

    def bare() -> None:
        for message, key in signed:
            nacl.bindings.crypto_sign_open(message, key)

    report = verify_bundle(data, roots, ENGINE)
    if report.level != "re-judged" or verify_bundle(data, roots, ANOTHER_ENGINE).level != "signed":
        raise SystemExit(f"not the levels that are measured: {report.why_not_rejudged}")
    # A stranger's process holds the bundle, and not the four organizations that made it.
    gc.collect()
    gc.freeze()
    times: dict[str, list[float]] = {"bare": [], "signed": [], "rejudged": []}
    for _ in range(rounds):
        times["bare"].append(took(bare))
        times["signed"].append(took(lambda: verify_bundle(data, roots, ANOTHER_ENGINE)))
        times["rejudged"].append(took(lambda: verify_bundle(data, roots, ENGINE)))
    return times, report, len(data), len(signed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench lineage", description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--rounds", type=int, default=10, help="verifications of the bundle at each level")
    parser.add_argument("--layers", type=int, default=24, help=f"layers of {WIDTH} assets")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"  making {options.layers * WIDTH} assets", file=sys.stderr, flush=True)
    times, report, size, signatures = measure(options.layers, options.rounds)
    rates = {name: report.records / statistics.median(values) for name, values in times.items()}
    figures = [
        figure("verify_rate", rates["signed"], "1/s", rates["bare"], AIM, rate=True),
        figure("rejudge_rate", rates["rejudged"], "1/s", rates["bare"], None, rate=True),
    ]
    described = machine(load, options.rounds, times) | {
        "records": report.records,
        "signatures": signatures,
        "votes": report.votes_rejudged,
        "bytes": size,
        "kinds": report.kinds,
    }
    if not options.json:
        print(lines(figures))
    print(json.dumps({"bench": "lineage", "machine": described, "figures": figures}))


if __name__ == "__main__":
    main()
