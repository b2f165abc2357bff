// Records: read as they were signed, and written as docs/spec/record.md has them. What is signed is DSSE's
// pre-authentication encoding of the header; the header commits to the body by its digest.

import { decode, encode, joined } from "./msgpack.js";

export const PAYLOAD_TYPE = "application/vnd.comity.record.v1+msgpack";
const SALT_BYTES = 32;
const text = new TextEncoder();

export async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(value) {
  if (!/^([0-9a-f]{2})*$/.test(value)) throw new Error("not hex");
  return Uint8Array.from(value.match(/../g) || [], (pair) => parseInt(pair, 16));
}

export function fromBase64(value) {
  return Uint8Array.from(atob(value), (letter) => letter.charCodeAt(0));
}

export function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** DSSE v1: `"DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload`. */
export function preAuthentication(payload) {
  const type = text.encode(PAYLOAD_TYPE);
  return joined([text.encode(`DSSEv1 ${type.length} `), type, text.encode(` ${payload.length} `), payload]);
}

/** The id by which records name a key: over domain, suite, a zero byte and the key. */
export async function keyId(publicKey) {
  return sha256(joined([text.encode("comity key v1\0ed25519\0"), publicKey]));
}

/**
 * An intent from the bytes of its record. Its id and the digest of its body are computed here, and have to be those
 * that were asked for and that the header commits to: the node cannot show one thing and have another signed.
 */
export async function openIntent(bytes, wantedId) {
  const record = decode(bytes);
  if (!Array.isArray(record) || record.length !== 4 || record[0] !== PAYLOAD_TYPE) throw new Error("not a record");
  const [, headerBytes, , bodyBytes] = record;
  const id = hex(await sha256(preAuthentication(headerBytes)));
  if (id !== wantedId) throw new Error("the node answered with another record than was asked for");
  const header = decode(headerBytes);
  const digest = await sha256(bodyBytes);
  if (header.kind !== "intent" || header.body.form !== "clear" || hex(header.body.digest) !== hex(digest))
    throw new Error("the body is not the one that was signed");
  return { id, header, body: decode(bodyBytes), digest };
}

/** An approval of what was shown, signed by a person's own key. */
export async function approval(person, shown, at, notAfter) {
  const body = { claim: "approval", not_after: notAfter, shown: shown.digest };
  return signed(person, "observation", body, at, {
    outcome: "approved",
    realm: shown.header.realm,
    subject: [unhex(shown.id)],
  });
}

/** An approval taken back, by the key that signed it. */
export async function withdrawal(person, approvalId, at) {
  const more = { realm: "production", subject: [unhex(approvalId)] };
  return signed(person, "revocation", { reason: "withdrawn" }, at, more);
}

/**
 * A record by a person.
 * person: { member, coalition, credential, publicKey, sign(bytes) }; ids in hex, the key as bytes.
 */
async function signed(person, kind, content, at, more) {
  const body = encode({ ...content, salt: crypto.getRandomValues(new Uint8Array(SALT_BYTES)) });
  return sealed(person, kind, body, at, more);
}

/** As `signed`, for a body that is written already. */
export async function sealed(person, kind, body, at, more) {
  const coalition = unhex(person.coalition);
  const key = await keyId(person.publicKey);
  const header = encode({
    at,
    authority: unhex(person.credential),
    body: { digest: await sha256(body), form: "clear", size: body.length },
    coalition,
    key,
    kind,
    member: person.member,
    scopes: [coalition],
    v: 1,
    ...more,
  });
  const message = preAuthentication(header);
  const signature = new Uint8Array(await person.sign(message));
  const bytes = encode([PAYLOAD_TYPE, header, [[key, "ed25519", signature]], body]);
  return { id: hex(await sha256(message)), bytes };
}
