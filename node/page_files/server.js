// What the page asks its node. The session's cookie is the browser's; the second secret is kept for this origin alone.

const KEPT = "comity page key";

/** An error that the node explained. */
export class Problem extends Error {
  constructor(said) {
    super(said.message || "the node did not answer");
    this.code = said.code || "no_answer";
    this.hint = said.hint || "";
  }
}

export function hasSession() {
  return localStorage.getItem(KEPT) !== null;
}

export function forgetSession() {
  localStorage.removeItem(KEPT);
}

async function asked(path, options = {}) {
  const headers = { "x-comity-page-key": localStorage.getItem(KEPT) || "", ...options.headers };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch {
    throw new Problem({ message: "the node does not answer: it may have stopped", code: "no_answer" });
  }
  if (answer.ok) return answer;
  let said = {};
  try {
    said = await answer.json();
  } catch {
    // Not the node's own words: the status has to do.
    said = { message: `the node answered with status ${answer.status}` };
  }
  if (answer.status === 401) forgetSession();
  throw new Problem(said);
}

export async function get(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return (await asked(query ? `${path}?${query}` : path)).json();
}

export async function post(path, value) {
  const headers = { "content-type": "application/json" };
  return (await asked(path, { method: "POST", body: JSON.stringify(value), headers })).json();
}

/** Exchange the code of a link for a session. */
export async function enter(code) {
  const said = await post("/api/login", { code });
  localStorage.setItem(KEPT, said.key);
}

export async function leave() {
  try {
    await post("/api/logout", {});
  } finally {
    forgetSession();
  }
}

/** Follow the node's events until the signal: `changed()` for each, `ended()` when the session is over. */
export async function follow(signal, changed, ended) {
  const answer = await asked("/api/events", { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith("event: changed")) changed();
      if (event.startsWith("event: ended")) {
        forgetSession();
        ended();
        return;
      }
    }
  }
}
