// Canonical MessagePack as docs/spec/encoding.md has it: booleans, integers, texts, bytes, arrays, and maps with text
// keys in the order of their UTF-8 bytes, each in its shortest form. What is outside of that is refused.

const DEPTH_MAX = 16;
const INT_MAX = 2n ** 63n - 1n;
const INT_MIN = -(2n ** 63n);
const text = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The bytes of a value: boolean, whole number, text, Uint8Array, array, or plain object. */
export function encode(value) {
  const parts = [];
  write(value, parts, 0);
  return joined(parts);
}

/** The value of some bytes, which have to be the only ones for it. Whole numbers beyond 2^53 are BigInts. */
export function decode(bytes) {
  const reader = { bytes, at: 0 };
  const value = read(reader, 0);
  const again = encode(value);
  if (again.length !== bytes.length || again.some((byte, i) => byte !== bytes[i])) throw new Error("not canonical");
  return value;
}

/** Several byte strings as one. */
export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function write(value, parts, depth) {
  if (typeof value === "boolean") parts.push(Uint8Array.of(value ? 0xc3 : 0xc2));
  else if (typeof value === "number") parts.push(integer(value));
  else if (typeof value === "bigint") parts.push(wide(value));
  else if (typeof value === "string") writeText(value, parts);
  else if (value instanceof Uint8Array) writeBytes(value, parts);
  else if (depth >= DEPTH_MAX) throw new Error("nested too deeply");
  else if (Array.isArray(value)) {
    parts.push(length(value.length, 0x90, 15, 0xdc));
    for (const item of value) write(item, parts, depth + 1);
  } else if (isMap(value)) {
    // What is absent is left out: there is no nil.
    const names = Object.keys(value).filter((name) => value[name] !== undefined).sort(byBytes);
    parts.push(length(names.length, 0x80, 15, 0xde));
    for (const name of names) {
      writeText(name, parts);
      write(value[name], parts, depth + 1);
    }
  } else throw new Error("not a value that can be written");
}

function isMap(value) {
  if (value === null || typeof value !== "object") return false;
  const above = Object.getPrototypeOf(value);
  return above === Object.prototype || above === null;
}

// JavaScript orders texts by UTF-16 units, which is another order beyond U+FFFF.
function byBytes(left, right) {
  const a = text.encode(left);
  const b = text.encode(right);
  for (let i = 0; i < Math.min(a.length, b.length); i += 1) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

function integer(value) {
  if (!Number.isSafeInteger(value)) throw new Error("not a whole number that can be written");
  if (value >= 0) {
    if (value < 0x80) return Uint8Array.of(value);
    if (value < 0x100) return Uint8Array.of(0xcc, value);
    if (value < 0x10000) return number(0xcd, 2, (view) => view.setUint16(1, value));
    if (value < 0x100000000) return number(0xce, 4, (view) => view.setUint32(1, value));
    return number(0xcf, 8, (view) => view.setBigUint64(1, BigInt(value)));
  }
  if (value >= -0x20) return Uint8Array.of(value + 0x100);
  if (value >= -0x80) return number(0xd0, 1, (view) => view.setInt8(1, value));
  if (value >= -0x8000) return number(0xd1, 2, (view) => view.setInt16(1, value));
  if (value >= -0x80000000) return number(0xd2, 4, (view) => view.setInt32(1, value));
  return number(0xd3, 8, (view) => view.setBigInt64(1, BigInt(value)));
}

function wide(value) {
  if (value > INT_MAX || value < INT_MIN) throw new Error("an integer beyond 64 bits signed");
  if (Number.isSafeInteger(Number(value))) return integer(Number(value));
  if (value > 0n) return number(0xcf, 8, (view) => view.setBigUint64(1, value));
  return number(0xd3, 8, (view) => view.setBigInt64(1, value));
}

function number(tag, size, set) {
  const bytes = new Uint8Array(size + 1);
  bytes[0] = tag;
  set(new DataView(bytes.buffer));
  return bytes;
}

function length(count, short, shortMax, long) {
  if (count <= shortMax) return Uint8Array.of(short + count);
  if (count < 0x10000) return number(long, 2, (view) => view.setUint16(1, count));
  return number(long + 1, 4, (view) => view.setUint32(1, count));
}

function writeText(value, parts) {
  if (!value.isWellFormed()) throw new Error("a text with half a character");
  const bytes = text.encode(value);
  if (bytes.length < 32) parts.push(Uint8Array.of(0xa0 + bytes.length));
  else if (bytes.length < 0x100) parts.push(Uint8Array.of(0xd9, bytes.length));
  else parts.push(length(bytes.length, 0, -1, 0xda));
  parts.push(bytes);
}

function writeBytes(bytes, parts) {
  if (bytes.length < 0x100) parts.push(Uint8Array.of(0xc4, bytes.length));
  else parts.push(length(bytes.length, 0, -1, 0xc5));
  parts.push(bytes);
}

function read(reader, depth) {
  if (depth > DEPTH_MAX) throw new Error("nested too deeply");
  const tag = take(reader, 1)[0];
  if (tag < 0x80) return tag;
  if (tag < 0x90) return readMap(reader, tag - 0x80, depth);
  if (tag < 0xa0) return readArray(reader, tag - 0x90, depth);
  if (tag < 0xc0) return strict.decode(take(reader, tag - 0xa0));
  if (tag >= 0xe0) return tag - 0x100;
  if (tag === 0xc2 || tag === 0xc3) return tag === 0xc3;
  const sizes = { 0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4 };
  if (tag in sizes) {
    const count = unsigned(reader, sizes[tag]);
    if (tag <= 0xc6) return take(reader, count).slice();
    if (tag <= 0xdb) return strict.decode(take(reader, count));
    return tag <= 0xdd ? readArray(reader, count, depth) : readMap(reader, count, depth);
  }
  if (tag >= 0xcc && tag <= 0xce) return unsigned(reader, 2 ** (tag - 0xcc));
  if (tag === 0xcf) return narrowed(viewOf(reader, 8).getBigUint64(0));
  if (tag === 0xd0) return viewOf(reader, 1).getInt8(0);
  if (tag === 0xd1) return viewOf(reader, 2).getInt16(0);
  if (tag === 0xd2) return viewOf(reader, 4).getInt32(0);
  if (tag === 0xd3) return narrowed(viewOf(reader, 8).getBigInt64(0));
  throw new Error("a value that is not written here");
}

function take(reader, count) {
  if (reader.at + count > reader.bytes.length) throw new Error("it ends too early");
  reader.at += count;
  return reader.bytes.subarray(reader.at - count, reader.at);
}

function viewOf(reader, count) {
  const bytes = take(reader, count);
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function unsigned(reader, size) {
  const view = viewOf(reader, size);
  return size === 1 ? view.getUint8(0) : size === 2 ? view.getUint16(0) : view.getUint32(0);
}

function narrowed(big) {
  const value = Number(big);
  return Number.isSafeInteger(value) ? value : big;
}

function readArray(reader, count, depth) {
  if (count > reader.bytes.length) throw new Error("it ends too early");
  const items = [];
  for (let i = 0; i < count; i += 1) items.push(read(reader, depth + 1));
  return items;
}

function readMap(reader, count, depth) {
  const value = Object.create(null);
  for (let i = 0; i < count; i += 1) {
    const name = read(reader, depth + 1);
    if (typeof name !== "string" || name in value) throw new Error("a key that is no text, or stands twice");
    value[name] = read(reader, depth + 1);
  }
  return value;
}
