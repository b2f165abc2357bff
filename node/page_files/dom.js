// Elements from plain values. Every text is set as text: what records hold is written by others, and never read as HTML.

// What cannot be seen is shown as an escape, as the commands do: it could turn the direction of reading, or hide.
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800\u{13441}\u{13442}\u{16fe4}\u{1d159}]|(?! )\p{Zs}/gu;

export function visible(value) {
  return String(value).replace(UNSEEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
}

/** An element. `attributes` are set as they are; `on` holds listeners; children are texts, elements, lists, or null. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [event, does] of Object.entries(value)) made.addEventListener(event, does);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, String(value));
  }
  fill(made, children);
  return made;
}

function fill(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : visible(child));
  }
}

/** Put other children into an element, and leave the keyboard where it was and open what was open. */
export function replace(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : "";
  const open = new Set(Array.from(parent.querySelectorAll("details[open]"), (each) => each.id));
  const fresh = document.createDocumentFragment();
  fill(fresh, children);
  for (const each of fresh.querySelectorAll("details")) if (each.id && open.has(each.id)) each.open = true;
  parent.replaceChildren(fresh);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** A time of a record, in whole seconds since 1970, in the reader's own clock. */
export function time(seconds) {
  const moment = new Date(seconds * 1000);
  const words = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return el("time", { datetime: moment.toISOString() }, words);
}

/** A free text of somebody's, apart from ours by its own direction and in quotes. */
export function quoted(value) {
  return el("bdi", { class: "quoted" }, value);
}

/** An id or a digest, shortened for the eye; the whole of it is in the title. */
export function id(value) {
  return el("code", { class: "id", title: value }, value.slice(0, 16));
}

/** Pairs of what and value; a value is a text, an element or a list. */
export function facts(...pairs) {
  return el(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([what, ...value]) => el("div", {}, el("dt", {}, what), el("dd", {}, ...value))),
  );
}

export function list(items, attributes = {}) {
  return items.length ? el("ul", attributes, items.map((each) => el("li", {}, each))) : null;
}

/** A time as an input of the browser takes it, in the reader's own clock. */
export function localInput(seconds) {
  const moment = new Date(seconds * 1000);
  const shifted = new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}
