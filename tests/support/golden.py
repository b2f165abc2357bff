"""Golden vectors: the specimens as files that any other implementation can read.

One JSON file for each kind (tests/vectors/README.md has the format). `scripts/vectors` compares them with what
the code writes now, and is the only thing that rewrites them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comity.attestation.signing import key_id
from comity.protocol.encoding import decode_value
from comity.protocol.envelope import PAYLOAD_TYPE, SignedRecord, pre_authentication_encoding
from comity.protocol.limits import BODY_BYTES_MAX, HEADER_BYTES_MAX
from specimens import NORTH, SOUTH, key, seed_of, specimens

FOLDER = Path(__file__).parents[1] / "vectors" / "records"
KEYS = (NORTH, SOUTH, f"{NORTH}/node/n1", f"{SOUTH}/node/n1", f"{NORTH}/operator/7f3a")
_NAMES = {key(name).key_id: name for name in KEYS}


def readable(value: Any) -> Any:
    """A value of the model as JSON. Bytes become `{"$hex": ...}`; nothing else is a map with that one key."""
    if isinstance(value, bytes):
        return {"$hex": value.hex()}
    if isinstance(value, dict):
        return {name: readable(item) for name, item in value.items()}
    return [readable(item) for item in value] if isinstance(value, list) else value


def vector_of(record: SignedRecord) -> dict[str, Any]:
    """Everything that a reader needs to make the record again, and to check what it made."""
    body = record.body_bytes or b""
    return {
        "kind": record.header.kind,
        "number": record.kind.number,
        "header": readable(decode_value(record.header_bytes, HEADER_BYTES_MAX)),
        "header_bytes": record.header_bytes.hex(),
        "body": readable(decode_value(body, BODY_BYTES_MAX)),
        "body_bytes": body.hex(),
        "signed_bytes": pre_authentication_encoding(PAYLOAD_TYPE, record.header_bytes).hex(),
        "id": record.id.hex(),
        "signatures": [_signature(s.key, s.suite, s.value) for s in record.signatures],
        "record": record.encoded().hex(),
    }


def _signature(signer: bytes, suite: str, value: bytes) -> dict[str, str]:
    name = _NAMES[signer]
    public = key(name).public
    return {
        "test_only_seed": seed_of(name).hex(),
        "suite": suite,
        "public_key": public.value.hex(),
        "key_id": key_id(public).hex(),
        "value": value.hex(),
    }


def files() -> dict[str, str]:
    """Every golden file by its name, as the code writes it now."""
    return {
        f"{kind}.json": json.dumps(vector_of(record), indent=2, ensure_ascii=False) + "\n"
        for kind, record in sorted(specimens().items())
    }


def differences(folder: Path = FOLDER) -> list[str]:
    """How the files in a folder differ from what the code writes: one sentence each."""
    wanted = files()
    found = (
        {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")} if folder.is_dir() else {}
    )
    problems = [f"{name}: is missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"{name}: belongs to no kind" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name] != found[name]:
            old, new = json.loads(found[name]), json.loads(wanted[name])
            fields = [field for field in new if old.get(field) != new[field]] or ["layout"]
            problems.append(f"{name}: differs in {', '.join(fields)}")
    return problems


def write(folder: Path = FOLDER) -> None:
    """Make the folder hold exactly what the code writes."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for path in folder.glob("*"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")
