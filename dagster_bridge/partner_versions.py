"""A sensor on what partners have made: a run for each new version of the assets that it watches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg
import msgspec

from comity.dagster_bridge.partners import client_and_home, newest_of_partners
from comity.node.client import NodeClient, NodeError, PartnerAsset
from comity.protocol.errors import ConfigError

INTERVAL_S: Final = 30
"""As Dagster's own sensors: a look is one question to the own node."""
REQUESTS_MAX: Final = 100
"""Runs that one look asks for; the next one goes on. Dagster gives an evaluation a minute."""
PARTITIONS_MAX: Final = 10_000
"""Partitions that are watched: as many as an intent can have made. Of more, the first by name."""
VERSIONS_TAG: Final = "comity/partner_versions"
"""What the run was asked for after. No evidence: what a run reads is verified when it reads it."""
_NAMED_MAX: Final = 8

_Versions = dict[str, str]
"""A digest of the versions that were met, by partition."""


def partner_sensor(
    name: str,
    *,
    watch: Sequence[str],
    target: Any = None,
    job: Any = None,
    home: Path | str | None = None,
    exchange: Path | str | None = None,
    client: NodeClient | None = None,
    minimum_interval_seconds: int = INTERVAL_S,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    description: str | None = None,
) -> dg.SensorDefinition:
    """A sensor that asks for a run when every watched asset is there, and again when one has a new version.

    It looks at the records that the own node has verified, not at files. A version that was taken back counts as
    the one before it. For partitions a run is asked for each, under the partition's own key; a watched asset
    without partitions counts for all of them. Nothing is asked for twice: the versions, and those before, are the
    run's key.

    Args:
        name: the sensor's name in Dagster.
        watch: asset ids of partners, e.g. `clinic-north.example/released`; at least one.
        target: what it makes, as for `dagster.SensorDefinition`: a job, assets, or a selection.
        job: the job that it runs, in place of `target`.
        home: the home of this organization's node; otherwise COMITY_HOME when it looks.
        exchange: the directory shared with partners: then only what is published there counts.
        client: a client of the node, instead of its home.

    Raises:
        ConfigError: it watches nothing, or something that is no partner's asset.
    """
    watched = tuple(dict.fromkeys(watch))
    if not watched:
        raise ConfigError(f"the sensor {name} watches nothing: watch=['partner.example/asset']")
    wrong = next((asset for asset in watched if not asset.partition("/")[2]), None)
    if wrong is not None:
        raise ConfigError(f"the sensor {name} watches {wrong!r}: a partner's asset is MEMBER/PATH")

    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            asked, place = client_and_home(home, client)
            rows = newest_of_partners(asked, place, exchange)
        except (NodeError, ConfigError) as exc:
            # What is there is asked for when the node answers again.
            return dg.SkipReason(f"the node was not asked: {exc}")
        return _result(watched, rows, context.cursor)

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=look,
        target=target,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=description or f"New versions of {', '.join(watched[:_NAMED_MAX])}",
    )


def _result(
    watched: Sequence[str], rows: Iterable[PartnerAsset], cursor: str | None
) -> dg.SensorResult | dg.SkipReason:
    found = _newest(watched, rows)
    missing = [asset for asset in watched if not found[asset]]
    if missing:
        more = f" and {len(missing) - _NAMED_MAX} more" if len(missing) > _NAMED_MAX else ""
        return dg.SkipReason(f"nothing is there yet of {', '.join(missing[:_NAMED_MAX])}{more}")
    met = _met(cursor)
    now = _complete(found)
    new = [partition for partition in sorted(now) if met.get(partition) != _digest(now[partition])]
    if not new:
        return dg.SkipReason("no version is new")
    requests: list[dg.RunRequest] = []
    for partition in new[:REQUESTS_MAX]:
        digest = _digest(now[partition])
        requests.append(_request(partition, now[partition], met.get(partition, ""), digest))
        met[partition] = digest
    # What is there no more need not be remembered.
    kept = {partition: digest for partition, digest in met.items() if partition in now}
    return dg.SensorResult(run_requests=requests, cursor=msgspec.json.encode(kept).decode())


def _newest(watched: Sequence[str], rows: Iterable[PartnerAsset]) -> dict[str, dict[str, str]]:
    """The newest actuation by partition, of each watched asset."""
    found: dict[str, dict[str, str]] = {asset: {} for asset in watched}
    for row in rows:
        if row.asset in found:
            found[row.asset][row.partition] = row.actuation
    return found


def _complete(found: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """The actuations of all watched assets, for each partition that all have."""
    partitions = {partition for versions in found.values() for partition in versions}
    if any(partition for partition in partitions):
        partitions.discard("")
    complete: dict[str, tuple[str, ...]] = {}
    for partition in sorted(partitions)[:PARTITIONS_MAX]:
        versions = [each.get(partition, each.get("", "")) for each in found.values()]
        if all(versions):
            complete[partition] = tuple(versions)
    return complete


def _digest(versions: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:32]


def _request(partition: str, versions: Sequence[str], before: str, digest: str) -> dg.RunRequest:
    short = ", ".join(version[:16] for version in versions[:_NAMED_MAX])
    # With what was there before: a version that stands again, because the next was taken back, is new once more.
    key = _digest((partition, before, digest))
    return dg.RunRequest(
        run_key=key,
        partition_key=partition or None,
        tags={VERSIONS_TAG: short},
    )


def _met(cursor: str | None) -> _Versions:
    """What the last look has met. A cursor that somebody has set by hand is none: what is there counts as new."""
    try:
        return msgspec.json.decode((cursor or "{}").encode(), type=_Versions)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {}
