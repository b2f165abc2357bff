// A private key from a PEM file as `comity key new` writes it: PKCS#8, plain or under a passphrase (RFC 5958; RFC 8018,
// PBES2 with PBKDF2 over HMAC-SHA256 and AES-256 in CBC). Other schemes are refused.

const PBES2 = "2a864886f70d01050d";
const PBKDF2 = "2a864886f70d01050c";
const HMAC_SHA256 = "2a864886f70d0209";
const AES_256_CBC = "60864801650304012a";
const ROUNDS_MAX = 10_000_000; // some seconds: a file that asks for more was not written for people
const BYTES_MAX = 16_384;

/** The DER bytes of an unencrypted PKCS#8 key. */
export async function privateKeyOf(pem, passphrase) {
  if (pem.length > BYTES_MAX) throw new Error("this file is too long for a private key");
  const found = /-----BEGIN (ENCRYPTED )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END (ENCRYPTED )?PRIVATE KEY-----/.exec(pem);
  if (!found) throw new Error("no private key in PEM");
  const der = Uint8Array.from(atob(found[2].replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
  if (!found[1]) return der;
  if (!passphrase) throw new Error("this key is under a passphrase: type it above");
  return opened(der, passphrase);
}

async function opened(der, passphrase) {
  const { salt, rounds, iv, sealed } = scheme(der);
  const typed = await crypto.subtle.importKey("raw", new TextEncoder().encode(passphrase), "PBKDF2", false, ["deriveKey"]);
  const derivation = { name: "PBKDF2", hash: "SHA-256", salt, iterations: rounds };
  const key = await crypto.subtle.deriveKey(derivation, typed, { name: "AES-CBC", length: 256 }, false, ["decrypt"]);
  try {
    return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-CBC", iv }, key, sealed));
  } catch {
    throw new Error("the passphrase is wrong, or the file is damaged");
  }
}

function scheme(der) {
  try {
    const [algorithm, sealed] = sequence(der);
    const [name, parameters] = sequence(algorithm.bytes);
    const [derivation, cipher] = sequence(parameters.bytes);
    const [derivationName, derivationParameters] = sequence(derivation.bytes);
    const [salt, rounds, ...rest] = sequence(derivationParameters.bytes);
    const [hash] = sequence(rest[rest.length - 1].bytes);
    const [cipherName, iv] = sequence(cipher.bytes);
    const wanted = [[name, PBES2], [derivationName, PBKDF2], [hash, HMAC_SHA256], [cipherName, AES_256_CBC]];
    if (wanted.every(([item, oid]) => item.tag === 0x06 && hex(item.value) === oid)) {
      const count = Number(`0x${hex(rounds.value)}`);
      if (rounds.tag === 0x02 && count > 0 && count <= ROUNDS_MAX && iv.value.length === 16)
        return { salt: salt.value, rounds: count, iv: iv.value, sealed: sealed.value };
    }
  } catch {
    // What is no DER is told like what is another scheme.
  }
  throw new Error("this key is encrypted in a way that this page does not open");
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The items of a DER sequence: `{ tag, value, bytes }`, the latter with tag and length. */
function sequence(bytes) {
  const outer = item(bytes, 0);
  if (outer.tag !== 0x30 || outer.bytes.length !== bytes.length) throw new Error("no sequence");
  const items = [];
  for (let at = 0; at < outer.value.length; at += items[items.length - 1].bytes.length) items.push(item(outer.value, at));
  return items;
}

function item(bytes, at) {
  let size = bytes[at + 1];
  let head = 2;
  if (size >= 0x80) {
    const count = size - 0x80;
    if (count < 1 || count > 2) throw new Error("no length");
    size = parseInt(hex(bytes.subarray(at + 2, at + 2 + count)), 16);
    head += count;
  }
  const end = at + head + size;
  if (!(end <= bytes.length)) throw new Error("it ends too early");
  return { tag: bytes[at], value: bytes.subarray(at + head, end), bytes: bytes.subarray(at, end) };
}
