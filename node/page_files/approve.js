// One intent for whoever may approve it: shown from the bytes that were signed, and approved by the person's own key.

import { el, facts, id, list, localInput, quoted, time } from "./dom.js";
import { approval, fromBase64, hex, openIntent, toBase64, withdrawal } from "./records.js";
import { get, post } from "./server.js";
import { badge, terms, vote } from "./words.js";

const HOUR_S = 3600;
const HOURS_MAX = 168; // as `comity approve --hours`: an intent is open for a week

/** The page of one intent. `state` is kept between two looks: what was chosen, and what was said last. */
export async function intent(intentId, key, state, again) {
  const said = await get(`/api/intents/${intentId}`, key ? { key: key.public } : {});
  const shown = await openIntent(fromBase64(said.record), intentId);
  return {
    title: "Intent",
    data: { ...said, state },
    content: [
      el("h1", { id: "title", tabindex: "-1" }, "What is asked for"),
      el("p", { class: "who" }, badge(said.standing), ` ${said.standings[said.standing] || ""}`),
      asked(shown, said),
      el("section", { class: "card", "aria-labelledby": "stands" }, el("h2", { id: "stands" }, "Where it stands"), standing(said)),
      el("section", { class: "card yours", "aria-labelledby": "yours" }, el("h2", { id: "yours" }, "Your approval"), yours(shown, said, key, state, again)),
      el("section", { class: "card", "aria-labelledby": "given" }, el("h2", { id: "given" }, "Approvals"), given(shown, said, key, state, again)),
    ],
  };
}

/** All of the signed body, as `comity approve` shows it; what the node adds is told apart. */
function asked(shown, said) {
  const { header, body } = shown;
  const run = body.run;
  const code = body.code;
  return el(
    "section",
    { class: "card", "aria-label": "What is asked for" },
    body.classes.map((group) => output(group, said)),
    facts(
      ["asked for by", quoted(body.requester)],
      ["organization", quoted(header.member)],
      ["purpose", quoted(body.purpose)],
      ["realm", quoted(header.realm)],
      ["asked", time(header.at)],
      ["open until", time(body.expires), `, at most ${body.attempts_max} attempts`],
      ["run", quoted(run.run)],
      ["job", quoted(run.job ?? "")],
      ["step", quoted(run.step ?? "")],
      ["orchestrator", quoted(run.orchestrator)],
      ["code", id(hex(code.digest)), code.location ? [" at ", quoted(code.location)] : null, code.revision ? [", revision ", quoted(code.revision)] : null],
      code.authors?.length ? ["its authors", quoted(code.authors.join(", "))] : null,
      code.reviewers?.length ? ["its reviewers", quoted(code.reviewers.join(", "))] : null,
      ["credential", id(hex(body.credential))],
    ),
    further(body).map((name) => el("p", { class: "failed" }, "It also says something that this page does not know and cannot show: ", quoted(name))),
    el("p", { class: "quiet" }, "Digest of what is asked, computed in this browser: ", el("code", { class: "whole", id: "digest" }, hex(shown.digest))),
  );
}

const KNOWN = {
  body: "attempts_max classes code credential expires purpose requester run salt",
  class: "asset columns inputs items media_type reversible",
  item: "generation inputs partition previous",
  code: "authors digest location reviewers revision",
  run: "job orchestrator run step",
};

/** The fields of an intent that are shown nowhere: of a later version than this page. */
function further(body) {
  const of = (value, what) => Object.keys(value).filter((name) => !KNOWN[what].split(" ").includes(name));
  const items = body.classes.flatMap((group) => group.items.flatMap((item) => of(item, "item")));
  const groups = body.classes.flatMap((group) => of(group, "class"));
  return [...new Set([...of(body, "body"), ...of(body.code, "code"), ...of(body.run, "run"), ...groups, ...items])];
}

function output(group, said) {
  const classes = (said.data_classes[group.asset] || []).join(", ") || "no data class";
  const inputs = group.inputs ?? [];
  const any = inputs.length || group.items.some((item) => item.inputs?.length);
  return el(
    "div",
    { class: "output" },
    el("h2", {}, "Make ", el("bdi", { class: "asset" }, group.asset)),
    el("p", {}, `classed ${classes}`, group.media_type ? [", as ", quoted(group.media_type)] : null, group.reversible ? ", reversible" : ""),
    list(
      group.items.map((item) => [
        item.partition ? ["partition ", quoted(item.partition), ", "] : null,
        `generation ${item.generation}`,
        item.previous ? [" after ", id(hex(item.previous))] : null,
        list((item.inputs ?? []).map((each) => input(each, said))),
      ]),
    ),
    el("p", {}, group.columns?.length ? ["columns ", group.columns.map((each, i) => [i ? ", " : "", quoted(each)])] : "no columns are declared"),
    inputs.length ? el("h3", {}, "From") : null,
    list(inputs.map((each) => input(each, said))),
    any ? null : el("p", {}, "from no governed input"),
  );
}

function input(bytes, said) {
  const known = said.inputs[hex(bytes)];
  if (!known || !known.held) return [id(hex(bytes)), ", which is not held here"];
  return [
    el("bdi", { class: "asset" }, known.asset),
    known.partition ? [" partition ", quoted(known.partition)] : null,
    `, generation ${known.generation}, owned by ${known.owners.join(", ") || "nobody known"}, classed ${known.data_classes.join(", ") || "nothing"}, tier ${known.tier} (`,
    id(hex(bytes)),
    ")",
  ];
}

function standing(said) {
  const causes = said.causes || [];
  const needs = said.needs || [];
  return [
    list(Object.entries(said.votes || {}).map(([member, word]) => [`${member}: `, vote(word, said.codes)])),
    terms(causes, needs, said.codes, "s"),
    said.permit ? el("p", {}, "It was permitted: ", el("a", { href: `#/why/${said.permit}`, id: "see" }, "why")) : null,
    said.refusal ? el("p", {}, "It was refused: ", el("a", { href: `#/why/${said.refusal}`, id: "see" }, "why")) : null,
    !said.permit && !said.refusal && !causes.length && !needs.length ? el("p", { class: "quiet" }, "Nothing more is known of it here.") : null,
  ];
}

function yours(shown, said, key, state, again) {
  const outcome = state.said ? el("p", { class: state.failed ? "failed" : "done", role: "status", id: "outcome", tabindex: "-1" }, state.said) : null;
  if (!key)
    return [outcome, el("p", {}, "This browser holds no key of yours. An approval is signed by your own key. "), el("p", { class: "actions" }, el("a", { class: "button", href: "#/key", id: "to-key" }, "Your key"))];
  const may = said.entitlements.filter((each) => each.may);
  const not = said.entitlements.filter((each) => !each.may);
  const reasons = list(not.map((each) => ["as ", quoted(each.subject), `: ${each.why}`]), { id: "why-not" });
  if (!said.entitlements.length)
    return [outcome, el("p", { id: "no-credential" }, "No credential for the key of this browser is known here: your organization has to issue one. "), el("p", { class: "actions" }, el("a", { class: "button", href: "#/key", id: "to-key" }, "Your key"))];
  if (!may.length) return [outcome, el("p", {}, "Your approval would change nothing now:"), reasons];
  const chosen = may.find((each) => each.credential === state.credential) || may[0];
  return [outcome, state.sure ? confirm(shown, said, key, chosen, state, again) : begin(said, may, chosen, state, again), reasons];
}

function begin(said, may, chosen, state, again) {
  const latest = said.now + HOURS_MAX * HOUR_S;
  const wanted = state.until && state.until < latest ? state.until : latest;
  return el(
    "form",
    {
      on: {
        submit: (event) => {
          event.preventDefault();
          const fields = event.target.elements;
          state.until = Math.floor(new Date(fields.until.value).getTime() / 1000);
          state.credential = fields.credential ? fields.credential.value : chosen.credential;
          state.sure = true;
          state.said = "";
          again("sign");
        },
      },
    },
    may.length > 1
      ? el("p", {}, el("label", { for: "credential" }, "You approve as"), el("select", { id: "credential", name: "credential" }, may.map((each) => el("option", { value: each.credential, selected: each === chosen }, `${each.subject} (${each.classes.join(", ")})`))))
      : el("p", {}, "You approve as ", quoted(chosen.subject), `, ${chosen.classes.join(", ")} of ${chosen.member}.`),
    el(
      "p",
      {},
      el("label", { for: "until" }, "It holds until"),
      el("input", { id: "until", name: "until", type: "datetime-local", required: true, min: localInput(said.now + 60), max: localInput(latest), value: localInput(wanted) }),
    ),
    el("p", { class: "actions" }, el("button", { id: "approve", class: "primary" }, "Approve")),
  );
}

function confirm(shown, said, key, chosen, state, again) {
  const sign = async () => {
    try {
      const person = { ...key, member: chosen.member, coalition: hex(shown.header.coalition), credential: chosen.credential };
      const made = await approval(person, shown, said.now, state.until);
      const done = await post("/api/records", { record: toBase64(made.bytes) });
      const told = done.told.length ? `, and told to ${done.told.join(", ")}` : "";
      Object.assign(state, { said: `Your approval was handed in${told}.`, failed: false, sure: false });
    } catch (error) {
      Object.assign(state, { said: `Not handed in: ${error.message}${error.hint ? ` (${error.hint})` : ""}`, failed: true, sure: false });
    }
    again("outcome");
  };
  const back = () => {
    state.sure = false;
    again("approve");
  };
  return el(
    "div",
    { class: "sure", role: "group", "aria-labelledby": "sure" },
    el("p", { id: "sure" }, "You sign that ", quoted(said.requester), " may do what is shown above, for the purpose ", quoted(said.purpose), ". It holds until ", time(state.until), "; your approval alone decides nothing; the organizations vote on it."),
    el("p", { class: "actions" }, el("button", { id: "sign", class: "primary", on: { click: sign } }, "Sign with my key"), el("button", { id: "back", on: { click: back } }, "Not now")),
  );
}

function given(shown, said, key, state, again) {
  if (!said.approvals.length) return el("p", { class: "quiet" }, "Nobody's approval of it is known here.");
  return list(said.approvals.map((each) => approvalRow(each, key, said.now, hex(shown.header.coalition), state, again)));
}

/** One approval; with the way to take it back, for whoever signed it. */
export function approvalRow(each, key, now, coalition, state, again) {
  const mine = key && each.key === key.id;
  const short = each.approval.slice(0, 16);
  const take = async () => {
    try {
      const person = { ...key, member: each.member, coalition, credential: each.credential };
      const made = await withdrawal(person, each.approval, now);
      await post("/api/records", { record: toBase64(made.bytes) });
      Object.assign(state, { said: "Your approval was taken back.", failed: false });
    } catch (error) {
      Object.assign(state, { said: `Not taken back: ${error.message}`, failed: true });
    }
    again("outcome");
  };
  return [
    badge(each.state === "counts" ? "counts" : "away", each.state),
    " ",
    quoted(each.by || each.member),
    each.classes.length ? `, ${each.classes.join(", ")} of ${each.member}` : ` of ${each.member}`,
    ", ",
    time(each.at),
    each.not_after ? [", until ", time(each.not_after)] : null,
    mine && each.state === "counts" ? [" ", el("button", { id: `take-${short}`, on: { click: take } }, "Withdraw it")] : null,
  ];
}
