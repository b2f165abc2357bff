// What waits, what was decided, who is connected, and why something is as it is.

import { el, facts, id, list, quoted, time } from "./dom.js";
import { get } from "./server.js";
import { badge, slots, term, terms, vote } from "./words.js";

const heading = (words) => el("h1", { id: "title", tabindex: "-1" }, words);

/** What waits, and for what; with a way to whatever an approval is needed for. */
export async function waiting(key) {
  const said = await get("/api/waiting", key ? { key: key.public } : {});
  const cards = said.rows.map((row) => waitingCard(row, said));
  const count = cards.length === 1 ? "One intent waits." : `${cards.length} intents wait.`;
  return {
    title: "Waiting",
    count: cards.length,
    data: said,
    content: [heading("Waiting"), el("p", { class: "lead" }, cards.length ? count : "Nothing waits."), cards],
  };
}

function waitingCard(row, said) {
  const foreign = row.member !== said.member;
  const approval = row.needs.some((each) => each.code === "approval");
  const key = row.intent.slice(0, 16);
  const silent = Object.entries(row.votes).filter(([, word]) => word === "silent");
  return el(
    "article",
    { class: "card", "aria-labelledby": `w-${key}` },
    el("h2", { id: `w-${key}` }, slots(row.assets)),
    el(
      "p",
      { class: "who" },
      foreign ? badge("deferred", "waits for your people") : badge(row.standing),
      ` ${row.member}, since `,
      time(row.at),
    ),
    facts(["asked for by", quoted(row.requester)], ["purpose", row.purpose], ["run", quoted(row.run)]),
    terms(row.causes, row.needs, said.codes, key),
    silent.length ? el("p", {}, `no answer from ${silent.map(([name]) => name).join(", ")}`) : null,
    row.goes_on_by_itself ? el("p", { class: "deed" }, "It goes on by itself.") : null,
    el(
      "p",
      { class: "actions" },
      approval
        ? el(
            "a",
            { class: row.may ? "button primary" : "button", href: `#/intent/${row.intent}`, id: `go-${key}` },
            row.may ? "Look at it and approve" : "Look at it",
          )
        : el("a", { class: "button", href: `#/intent/${row.intent}`, id: `go-${key}` }, "Look at it"),
      approval && row.why ? el("span", { class: "why-not" }, row.why) : null,
    ),
  );
}

/** The newest decisions. */
export async function decided() {
  const said = await get("/api/decided");
  return {
    title: "Decided",
    data: said,
    content: [
      heading("Decided"),
      el("p", { class: "lead" }, said.rows.length ? "The newest decisions that are known here." : "Nothing was decided yet."),
      said.rows.map((row) =>
        el(
          "article",
          { class: "card slim" },
          el(
            "h2",
            {},
            el("a", { href: `#/why/${row.decision}`, id: `d-${row.decision.slice(0, 16)}` }, slots(row.slots)),
          ),
          el("p", { class: "who" }, badge(row.outcome), ` for ${row.member}, `, time(row.t)),
        ),
      ),
    ],
  };
}

/** Everything behind a run, an asset or an id. */
export async function why(name, ask) {
  const asked = el(
    "form",
    {
      class: "ask",
      on: {
        submit: (event) => {
          event.preventDefault();
          ask(event.target.elements.name.value.trim());
        },
      },
    },
    el("label", { for: "why-name" }, "A run, an asset, or the id of anything"),
    el("span", {}, el("input", { id: "why-name", name: "name", value: name, autocomplete: "off", spellcheck: "false", maxlength: 1024 }), el("button", { id: "why-go" }, "Why?")),
  );
  if (!name) return { title: "Why", data: null, content: [heading("Why"), asked] };
  const said = await get("/api/why", { name });
  return {
    title: "Why",
    data: said,
    content: [
      heading("Why"),
      asked,
      el("p", { class: "lead" }, `${words(said.what)} `, quoted(said.name), said.partition ? [" partition ", quoted(said.partition)] : null),
      said.what === "asset" && !said.actuation ? el("p", {}, "No promoted actuation of it is known here.") : null,
      said.what === "asset" && said.actuation
        ? el("p", {}, "Its newest promoted actuation known here is ", id(said.actuation), `, generation ${said.generation}.`)
        : null,
      said.intents.map((each, i) => toldCard(each, said, i)),
      said.intents_more ? el("p", {}, `${said.intents_more} older intents are not shown.`) : null,
    ],
  };
}

const words = (kind) => kind.replace(/_/g, " ").replace(/^./, (letter) => letter.toUpperCase());

function toldCard(each, said, i) {
  const asked = each.intent;
  const open = each.decision === null || ["asking", "deferred", "held"].includes(asked.standing);
  return el(
    "article",
    { class: "card" },
    el("h2", {}, slots(asked.assets)),
    el("p", { class: "who" }, badge(asked.standing), ` ${said.standings[asked.standing] || ""}`),
    facts(
      ["asked for by", quoted(asked.requester)],
      ["organization", asked.member],
      ["purpose", asked.purpose],
      ["realm", asked.realm],
      ["run", quoted(asked.run), asked.step ? [", step ", quoted(asked.step)] : null],
      ["asked", time(asked.at)],
      ["intent", el("a", { href: `#/intent/${asked.intent}`, id: `i-${asked.intent.slice(0, 16)}` }, id(asked.intent))],
    ),
    each.decision ? decision(each.decision, said, i) : null,
    open ? undecided(asked, said, i) : null,
    each.work.length ? [el("h3", {}, "What came of it"), list(each.work.map(work))] : null,
  );
}

function work(row) {
  const at = row.partition ? [" partition ", quoted(row.partition)] : null;
  const what = row.kind === "start" ? `started, attempt ${row.attempt}: ` : `${row.state}: `;
  return [what, el("bdi", {}, row.asset), at, ", ", time(row.at)];
}

function decision(made, said, i) {
  const all = made.votes.length + made.votes_missing.length;
  const count = all === 1 ? "one vote" : `${all} votes`;
  return [
    el("h3", {}, "Decided: ", badge(made.outcome)),
    el("p", {}, time(made.t), ` by ${count}`, made.quorum ? ` where ${made.quorum} decide.` : ".", made.votes_missing.length ? ` ${made.votes_missing.length} of them are not held here.` : ""),
    made.outputs.map((output) =>
      el(
        "p",
        {},
        badge(output.mode),
        " ",
        el("bdi", { class: "asset" }, output.asset),
        output.partition ? [" partition ", quoted(output.partition)] : null,
        ": ",
        output.all_columns ? "all columns" : `columns ${output.columns.join(", ") || "none"}`,
        output.obligations.map((each, j) => term(each, said.codes, ["obligation"], "under the obligation", `o-${i}-${j}-${output.asset}`)),
      ),
    ),
    el("h3", {}, "Vote by vote"),
    made.votes.map((each, j) => ballot(each, said, `v-${i}-${j}`)),
  ];
}

function ballot(each, said, key) {
  return el(
    "section",
    { class: "ballot" },
    el("p", {}, el("strong", {}, each.member), " ", each.classes.map((group) => [badge(group.mode), " "])),
    each.classes.map((group, i) => terms(group.causes, group.needs, said.codes, `${key}-${i}`)),
    each.classes.every((group) => !group.causes.length && !group.needs.length)
      ? el("p", { class: "quiet" }, "nothing against it")
      : null,
  );
}

function undecided(asked, said, i) {
  return [
    el("h3", {}, "So far"),
    list(Object.entries(asked.votes || {}).map(([member, word]) => [`${member}: `, vote(word, said.codes)])),
    terms(asked.causes || [], asked.needs || [], said.codes, `u-${i}`),
  ];
}

/** Who belongs to the coalition, and who is in reach. */
export async function people() {
  const said = await get("/api/people");
  return {
    title: "Connected",
    data: said,
    content: [
      heading("Connected"),
      el(
        "p",
        { class: "lead" },
        `${said.reachable} of ${said.members.length} organizations of `,
        quoted(said.coalition_name),
        ` are in reach; ${said.quorum} decide. `,
        said.quorum_reachable ? "" : el("strong", {}, "Nothing can be decided now; it goes on by itself when enough are back."),
      ),
      said.members.map((member) =>
        el(
          "article",
          { class: "card slim" },
          el("h2", {}, member.member),
          el(
            "p",
            { class: "who" },
            badge(member.connected ? "connected" : "away", member.self ? "this node" : member.connected ? "connected" : "not in reach"),
            member.since ? [" since ", time(member.since)] : null,
          ),
          member.counted ? null : el("p", {}, "Its votes make up no quorum: it is shown to have cast two at once."),
          member.self ? null : list(member.nodes.map((node) => [quoted(node.node), node.connected ? ", connected" : ", gone", " since ", time(node.since)])),
        ),
      ),
      facts(["this node", quoted(said.node)], ["epoch", said.epoch], ["runs since", time(said.started)]),
    ],
  };
}
