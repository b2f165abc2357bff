// The person's own key: made here or imported, how the organization issues a credential for it, and what it has signed.

import { approvalRow } from "./approve.js";
import { el, facts, id, list, quoted, time } from "./dom.js";
import { companion, forgetKey, importKey, makeKey } from "./keys.js";
import { get } from "./server.js";
import { badge } from "./words.js";

export async function key(held, state, again) {
  const head = [el("h1", { id: "title", tabindex: "-1" }, "Your key"), state.said ? el("p", { class: state.failed ? "failed" : "done", role: "status", id: "outcome", tabindex: "-1" }, state.said) : null];
  if (!held) return { title: "Your key", data: { state }, content: [head, without(state, again)] };
  const said = await get("/api/key", { key: held.public });
  return { title: "Your key", data: { said, state }, content: [head, withKey(held, said, state, again)] };
}

function attempt(state, again, work, words) {
  return async (event) => {
    try {
      await work(event);
      Object.assign(state, { said: words, failed: false, forget: false });
    } catch (error) {
      Object.assign(state, { said: error.message, failed: true });
    }
    again("outcome");
  };
}

function without(state, again) {
  const make = attempt(state, again, makeKey, "A key was made. Have your organization issue a credential for it.");
  const take = attempt(state, again, async (event) => {
    event.preventDefault();
    const fields = event.target.elements;
    await importKey(await fields.pem.files[0].text(), fields.passphrase.value);
  }, "The key was imported. The file is still where it was: keep it as a secret, or delete it.");
  return [
    el("section", { class: "card" }, el("h2", {}, "Make one here"), el("p", {}, "It is made in this browser, and nobody can read it out. Whoever uses this browser as you can sign with it. It cannot be backed up: if the browser's data is lost, your organization issues a credential for another key."), el("p", { class: "actions" }, el("button", { id: "make", class: "primary", on: { click: make } }, "Make my key"))),
    el("section", { class: "card" }, el("h2", {}, "Or import one"), el("p", {}, "A file that ", el("code", {}, "comity key new"), " made."), el("form", { on: { submit: take } }, el("p", {}, el("label", { for: "pem" }, "Private key file"), el("input", { id: "pem", name: "pem", type: "file", accept: ".pem", required: true })), el("p", {}, el("label", { for: "passphrase" }, "Passphrase, if it has one"), el("input", { id: "passphrase", name: "passphrase", type: "password", autocomplete: "off" })), el("p", { class: "actions" }, el("button", { id: "import" }, "Import it")))),
  ];
}

function withKey(held, said, state, again) {
  const file = companion(held);
  const copy = attempt(state, again, () => navigator.clipboard.writeText(file), "Copied.");
  const issue = `comity credential issue --subject operator/ID --kind person --class CLASS --action approve --asset '*/**' --public my-key.pub.json`;
  return [
    el("section", { class: "card" }, el("h2", {}, "Its public half"), el("p", {}, "Give this file to whoever keeps your organization's key, on a road that they trust to be yours."), el("pre", { id: "companion", tabindex: "0" }, document.createTextNode(file)), el("p", { class: "actions" }, el("button", { id: "copy", on: { click: copy } }, "Copy"), el("a", { class: "button", id: "download", download: "my-key.pub.json", href: `data:application/json,${encodeURIComponent(file)}` }, "Download")), el("p", {}, "They issue a credential by:"), el("p", { class: "commands" }, el("code", {}, issue))),
    el("section", { class: "card" }, el("h2", {}, "Your credentials"), said.credentials.length ? said.credentials.map(credential) : el("p", { id: "no-credential" }, "None that is for this key is known here yet.")),
    el("section", { class: "card" }, el("h2", {}, "What you approved"), said.approvals.length ? list(said.approvals.map((each) => [el("a", { href: `#/intent/${each.intent}`, id: `of-${each.approval.slice(0, 16)}` }, el("bdi", {}, each.assets.join(", "))), " ", approvalRow(each, held, said.now, said.coalition, state, again)])) : el("p", { class: "quiet" }, "Nothing that is known here.")),
    el("section", { class: "card" }, el("h2", {}, "Forget it"), forgetting(state, again)),
  ];
}

function credential(each) {
  return el(
    "div",
    { class: "output" },
    el("p", { class: "who" }, badge(each.state === "in force" ? "counts" : "away", each.state), " ", quoted(each.subject), ` of ${each.member}`),
    facts(["classes", each.classes.join(", ")], ["may", each.actions.join(", ")], ["assets", each.assets.join(", ")], ["until", time(each.not_after)], ["id", id(each.credential)]),
  );
}

function forgetting(state, again) {
  if (!state.forget) {
    const ask = () => {
      state.forget = true;
      again("forget-yes");
    };
    return [el("p", {}, "This browser then signs nothing any more. A key that was made here is gone for good."), el("p", { class: "actions" }, el("button", { id: "forget", on: { click: ask } }, "Forget my key"))];
  }
  const yes = attempt(state, again, forgetKey, "This browser holds no key any more. Have your organization revoke its credential.");
  const no = () => {
    state.forget = false;
    again("forget");
  };
  return [el("p", {}, el("strong", {}, "Really? Nobody can bring it back.")), el("p", { class: "actions" }, el("button", { id: "forget-yes", class: "danger", on: { click: yes } }, "Forget it"), el("button", { id: "forget-no", on: { click: no } }, "Keep it"))];
}
