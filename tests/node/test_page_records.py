"""What the page writes and signs in a browser, held against the golden vectors of the records."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from playwright.sync_api import Page

from browser import Browsers, Screen, browsers
from comity.node import page_views
from comity.node.keystore import create_key
from comity.protocol.execution import CodeReference, Intent, Item, ItemClass, RunReference
from houses import found, inhabited, short_folder
from page_visits import enter, go, import_key, with_page
from world import NORTH

pytestmark = pytest.mark.xdist_group("browser")
VECTORS = Path(__file__).resolve().parents[1] / "vectors"

SPELL = """async ([accepted, rejected]) => {
  const { decode, encode } = await import("/files/msgpack.js");
  const { hex, unhex } = await import("/files/records.js");
  const wrong = [];
  for (const { name, hex: spelt } of accepted) {
    try {
      if (hex(encode(decode(unhex(spelt)))) !== spelt) wrong.push(`${name}: written otherwise`);
    } catch (error) {
      wrong.push(`${name}: ${error.message}`);
    }
  }
  for (const { name, hex: spelt } of rejected) {
    try {
      decode(unhex(spelt));
      wrong.push(`${name}: read`);
    } catch {}
  }
  return wrong;
}"""
READ = """async ({ header_bytes, body_bytes, id, record, signed_bytes, header, kind }) => {
  const { decode, encode } = await import("/files/msgpack.js");
  const { hex, preAuthentication, sha256, unhex } = await import("/files/records.js");
  const plain = (value) => {
    if (value instanceof Uint8Array) return { $hex: hex(value) };
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value !== "object") return value;
    return Object.fromEntries(Object.keys(value).sort().map((name) => [name, plain(value[name])]));
  };
  const parts = decode(unhex(record));
  const message = preAuthentication(parts[1]);
  return {
    header_bytes: hex(encode(decode(parts[1]))),
    body_bytes: hex(encode(decode(parts[3]))),
    signed_bytes: hex(message),
    id: hex(await sha256(message)),
    record: hex(encode(parts)),
    header: plain(decode(parts[1])),
  };
}"""
SIGN = """async ({ header, body_bytes, signatures: [{ test_only_seed, public_key }] }) => {
  const { hex, sealed, unhex } = await import("/files/records.js");
  const der = unhex("302e020100300506032b657004220420" + test_only_seed);
  const key = await crypto.subtle.importKey("pkcs8", der, "Ed25519", false, ["sign"]);
  const bytes = (value) => value.$hex;
  const person = {
    member: header.member,
    coalition: bytes(header.coalition),
    credential: header.authority ? bytes(header.authority) : "",
    publicKey: unhex(public_key),
    sign: (message) => crypto.subtle.sign("Ed25519", key, message),
  };
  const more = { realm: header.realm, subject: header.subject.map((each) => unhex(bytes(each))) };
  if (header.outcome) more.outcome = header.outcome;
  if (!header.authority) more.authority = undefined;
  const made = await sealed(person, header.kind, unhex(body_bytes), header.at, more);
  return { id: made.id, record: hex(made.bytes) };
}"""


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def at() -> Iterator[Browsers]:
    with browsers() as started:
        yield started


def vector(kind: str) -> Any:
    return json.loads((VECTORS / f"records/{kind}.json").read_text())


async def at_a_page(screen: Screen, place: Path, work: Any) -> Any:
    """Do something with the page's own modules, as one node serves them."""
    homes = found(place, (NORTH,))
    with_page(homes[NORTH])
    async with inhabited(homes) as houses:
        await enter(screen, houses[NORTH])
        return await screen.do(work)


async def test_the_browser_spells_as_the_vectors_do(place: Path, at: Browsers) -> None:
    known = json.loads((VECTORS / "encoding.json").read_text())
    assert len(known["accepted"]) > 30
    assert len(known["rejected"]) > 40
    with at.screen() as screen:
        wrong = await at_a_page(
            screen, place, lambda page: page.evaluate(SPELL, [known["accepted"], known["rejected"]])
        )
    assert wrong == []


async def test_the_browser_reads_every_kind_as_it_was_signed(place: Path, at: Browsers) -> None:
    vectors = [json.loads(path.read_text()) for path in sorted((VECTORS / "records").glob("*.json"))]
    assert len(vectors) > 30

    def read_all(page: Page) -> list[Any]:
        return [page.evaluate(READ, each) for each in vectors]

    with at.screen() as screen:
        read = await at_a_page(screen, place, read_all)
    for made, expected in zip(read, vectors, strict=True):
        assert made == {name: expected[name] for name in made}, expected["kind"]


@pytest.mark.parametrize("kind", ["observation", "revocation"])
async def test_the_browser_signs_to_the_byte_as_we_do(place: Path, at: Browsers, kind: str) -> None:
    known = vector(kind)
    with at.screen() as screen:
        made = await at_a_page(screen, place, lambda page: page.evaluate(SIGN, known))
    assert made == {"id": known["id"], "record": known["record"]}


async def test_a_key_from_a_file_is_the_same_key(place: Path, at: Browsers) -> None:
    """A PEM that a command made is imported, and what is no such file is refused with a sentence."""
    create_key(place / "own.pem")
    create_key(place / "locked.pem", passphrase=b"secret")
    (place / "none.pem").write_text("nothing")
    # Of another length of key: AES-192 in the place of AES-256.
    text = (place / "locked.pem").read_text()
    der = bytearray(base64.b64decode("".join(text.splitlines()[1:-1])))
    cipher = der.index(bytes.fromhex("60864801650304012a"))
    der[cipher + 8] = 0x16
    lines = base64.encodebytes(bytes(der)).decode()
    other = f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{lines}-----END ENCRYPTED PRIVATE KEY-----\n"
    (place / "other.pem").write_text(other)
    (place / "no.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    expected = json.loads((place / "own.pub.json").read_text())

    def imported(page: Page) -> Any:
        go(page, "Your key")

        def refused(name: str, passphrase: str, words: str) -> None:
            import_key(page, place / name, passphrase)
            page.locator("#outcome", has_text=words).wait_for()
            assert page.locator("#companion").count() == 0

        refused("locked.pem", "", "under a passphrase")
        refused("locked.pem", "guessed", "the passphrase is wrong")
        refused("other.pem", "secret", "in a way that this page does not open")
        refused("no.pem", "", "not an Ed25519 key")
        refused("none.pem", "", "no private key in PEM")
        import_key(page, place / "locked.pem", "secret")
        locked = json.loads(page.locator("#companion").inner_text())
        page.locator("#forget").click()
        page.locator("#forget-yes").click()
        page.locator("#make").wait_for()
        import_key(page, place / "own.pem")
        said = json.loads(page.locator("#companion").inner_text())
        # Nobody reads it out again, whatever script runs here.
        kept = page.evaluate(
            """async () => {
              const opening = indexedDB.open("comity", 1);
              await new Promise((done) => { opening.onsuccess = done; });
              const store = opening.result.transaction("keys").objectStore("keys").get("person");
              await new Promise((done) => { store.onsuccess = done; });
              const { privateKey } = store.result;
              const out = await crypto.subtle.exportKey("pkcs8", privateKey).catch((error) => error.name);
              return [privateKey.extractable, out];
            }"""
        )
        page.reload()
        page.locator("#companion").wait_for()
        page.locator("#forget").click()
        page.locator("#forget-yes").click()
        page.locator("#make").wait_for()
        return said, kept, locked

    with at.screen() as screen:
        said, kept, locked = await at_a_page(screen, place, imported)
    assert said == expected
    assert locked == json.loads((place / "locked.pub.json").read_text())
    assert kept == [False, "InvalidAccessError"]


def test_the_page_shows_every_field_that_an_intent_has() -> None:
    """What is added to an intent is added to what an approver is shown."""
    text = (Path(page_views.__file__).parent / "page_files/approve.js").read_text()
    listed = dict(re.findall(r'^  (\w+): "([a-z_ ]+)",$', text, re.MULTILINE))
    forms: dict[str, type[msgspec.Struct]] = {
        "body": Intent,
        "class": ItemClass,
        "item": Item,
        "code": CodeReference,
        "run": RunReference,
    }
    assert listed.keys() == forms.keys()
    for name, form in forms.items():
        fields = {field.name for field in msgspec.structs.fields(form)} - {"critical"}
        assert set(listed[name].split()) == fields, name
        # Named is not yet shown: each is used, but for the salt, which says nothing.
        for field in fields - {"salt"}:
            assert re.search(rf"\.{field}\b", text), (name, field)
