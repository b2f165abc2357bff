// The person's own key. It is made in this browser and never leaves it: WebCrypto keeps it where no script can read it,
// and IndexedDB holds the handle. Or it is imported from a file that `comity key new` made.

import { privateKeyOf } from "./pem.js";
import { hex, keyId } from "./records.js";

const DATABASE = "comity";
const STORE = "keys";
const NAME = "person";

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function database() {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  return done(opening);
}

async function within(mode, work) {
  const base = await database();
  try {
    return await done(work(base.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    base.close();
  }
}

/** The key of this browser: `{ publicKey, public, id, sign }`, or null. */
export async function heldKey() {
  const held = await within("readonly", (store) => store.get(NAME));
  return held ? await person(held) : null;
}

async function person({ privateKey, publicKey }) {
  return {
    publicKey,
    public: hex(publicKey),
    id: hex(await keyId(publicKey)),
    sign: (bytes) => crypto.subtle.sign("Ed25519", privateKey, bytes),
  };
}

async function keep(held) {
  // A browser may clear what a site keeps when its disk is full, unless it was asked not to.
  if (navigator.storage && navigator.storage.persist) await navigator.storage.persist();
  await within("readwrite", (store) => store.put(held, NAME));
  return person(held);
}

/** Make a key that nobody can read out of this browser. */
export async function makeKey() {
  const pair = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return keep({ privateKey: pair.privateKey, publicKey });
}

/** Take a key from the text of a PEM file, under a passphrase perhaps. What is kept cannot be read out again. */
export async function importKey(pem, passphrase) {
  const der = await privateKeyOf(pem, passphrase);
  let privateKey;
  let readable;
  try {
    privateKey = await crypto.subtle.importKey("pkcs8", der, "Ed25519", false, ["sign"]);
    readable = await crypto.subtle.importKey("pkcs8", der, "Ed25519", true, ["sign"]);
  } catch {
    throw new Error("not an Ed25519 key");
  }
  const { x } = await crypto.subtle.exportKey("jwk", readable);
  const standard = x.replace(/-/g, "+").replace(/_/g, "/");
  const publicKey = Uint8Array.from(atob(standard), (letter) => letter.charCodeAt(0));
  return keep({ privateKey, publicKey });
}

/** Forget the key of this browser. Whoever lost it like that needs a new credential. */
export async function forgetKey() {
  await within("readwrite", (store) => store.delete(NAME));
}

/** What `comity credential issue --public` reads. */
export function companion(key) {
  return `${JSON.stringify({ suite: "ed25519", public: key.public, key_id: key.id }, null, 2)}\n`;
}
