// The page: which view is shown, by the fragment of the address, and that it stays true while it is looked at.

import { intent } from "./approve.js";
import { el, replace } from "./dom.js";
import { key as keyView } from "./key.js";
import { heldKey } from "./keys.js";
import { enter, follow, forgetSession, get, hasSession, leave } from "./server.js";
import { decided, people, waiting, why } from "./views.js";

const REFRESH_MS = 30_000; // what no event tells: that time passes
const AGAIN_MS = 2_000;

const main = document.getElementById("main");
const status = document.getElementById("status");
const who = document.getElementById("who");
const nav = document.getElementById("nav");

// What is pressed must still be there when it is let go: a view is not changed under a finger.
const pressed = new Set();
const waitingForRelease = new Set();
const press = (what) => pressed.add(what);
const release = (what) => {
  pressed.delete(what);
  // The click comes after the release.
  if (!pressed.size) setTimeout(() => { for (const go of waitingForRelease) go(); waitingForRelease.clear(); });
};
const released = () => (pressed.size ? new Promise((resolve) => waitingForRelease.add(resolve)) : Promise.resolve());
addEventListener("pointerdown", () => press("pointer"), true);
for (const event of ["pointerup", "pointercancel", "dragend"]) addEventListener(event, () => release("pointer"), true);
addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") press("key"); }, true);
addEventListener("keyup", () => release("key"), true);
addEventListener("blur", () => { release("pointer"); release("key"); });

let state = {};
let shown = "";
let place = "";
let wanted = "";
let turn = 0;

function route() {
  const [, view = "", rest = ""] = /^#\/([a-z]+)(?:\/(.*))?$/s.exec(location.hash) || [];
  try {
    return { view: view || "waiting", rest: decodeURIComponent(rest) };
  } catch {
    return { view: "waiting", rest: "" };
  }
}

async function load({ view, rest }) {
  const key = await heldKey();
  const again = (focus) => show({ focus });
  if (view === "waiting") return waiting(key);
  if (view === "decided") return decided();
  if (view === "connected") return people();
  if (view === "why") return why(rest, (name) => { location.hash = `#/why/${encodeURIComponent(name)}`; });
  if (view === "intent") return intent(rest, key, state, again);
  if (view === "key") return keyView(key, state, again);
  location.hash = "#/waiting";
  return null;
}

/** Show the view of the address. `focus` is the id of what the keyboard goes to; without it, it stays. */
async function show({ focus = "" } = {}) {
  const now = location.hash;
  if (now !== place) {
    state = {};
    shown = "";
    place = now;
    focus = "title";
  }
  // Kept until something is shown: a newer look may overtake this one.
  if (focus) wanted = focus;
  turn += 1;
  const mine = turn;
  try {
    const view = await load(route());
    await released();
    if (mine !== turn || view === null) return;
    say("");
    const seen = JSON.stringify({ ...view.data, now: 0 });
    if (seen !== shown || wanted) replace(main, view.content);
    shown = seen;
    document.title = `${view.title} - Comity`;
    for (const link of nav.querySelectorAll("a")) {
      const current = link.getAttribute("href") === `#/${route().view}`;
      if (current) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (view.count !== undefined) count(view.count);
  } catch (error) {
    if (mine !== turn) return;
    if (error.code === "session_ended") {
      ended();
      return;
    }
    failed(error);
  }
  if (wanted) document.getElementById(wanted)?.focus();
  wanted = "";
}

function failed(error) {
  say(error.message);
  // What was shown stays where only a look at it again has failed.
  if (shown === "")
    replace(main, el("h1", { id: "title", tabindex: "-1" }, "This cannot be shown"), el("p", { class: "failed", id: "outcome" }, error.message), error.hint ? el("p", {}, error.hint) : null);
}

function say(words) {
  status.textContent = words;
  status.hidden = !words;
}

function count(number) {
  document.getElementById("count").textContent = number ? String(number) : "";
}

function ended() {
  forgetSession();
  turn += 1;
  nav.hidden = true;
  who.textContent = "";
  say("");
  document.title = "Comity";
  replace(
    main,
    el("h1", { id: "title", tabindex: "-1" }, "No session"),
    el("p", {}, "This page shows what waits for people at a node. In a terminal on the node's machine, run"),
    el("p", { class: "commands" }, el("code", {}, "comity page")),
    el("p", {}, "and open the link that it prints. A link works once, and a session lasts eight hours."),
  );
}

/** Follow the node while the page is looked at; a browser has few connections for all its tabs. */
async function watch() {
  for (;;) {
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    if (document.hidden) continue;
    if (!hasSession()) return;
    const stop = new AbortController();
    const hide = () => { if (document.hidden) stop.abort(); };
    document.addEventListener("visibilitychange", hide);
    try {
      await show();
      await follow(stop.signal, changed, ended);
    } catch (error) {
      if (error.code === "session_ended") {
        ended();
        return;
      }
      if (!document.hidden) say("The node does not answer. This page tries again.");
    }
    document.removeEventListener("visibilitychange", hide);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

async function changed() {
  await show();
  if (route().view !== "waiting") count((await get("/api/waiting")).rows.length);
}

async function begin() {
  const code = /^#code=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (code) {
    history.replaceState(null, "", "/");
    try {
      await enter(code[1]);
    } catch (error) {
      ended();
      say(`${error.message}. ${error.hint || ""}`);
      return;
    }
  }
  if (!hasSession()) {
    ended();
    return;
  }
  try {
    const said = await get("/api/people");
    who.textContent = said.member;
    nav.hidden = false;
    count((await get("/api/waiting")).rows.length);
  } catch (error) {
    if (error.code === "session_ended") {
      ended();
      return;
    }
    say(error.message);
  }
  addEventListener("hashchange", () => show());
  addEventListener("storage", () => { if (!hasSession()) ended(); });
  setInterval(() => { if (!document.hidden && hasSession()) show(); }, REFRESH_MS);
  document.getElementById("leave").addEventListener("click", async () => {
    await leave().catch(() => {});
    ended();
  });
  watch();
}

begin();
