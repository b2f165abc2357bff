// Causes, needs and votes in words: the code, the sentence, what the code means, and what to do.

import { el, list, quoted, visible } from "./dom.js";

const MODES = { execute: "execute", restrict: "restrict", defer: "defer", refuse: "refuse" };

/** What a page of one code says, in the first of these families that has it. */
function page(codes, code, families) {
  const found = codes[code] || [];
  for (const family of families) {
    const one = found.find((each) => each.family === family);
    if (one) return one;
  }
  return null;
}

/** One cause or need, with its code; opened, it says what that means and what to do. */
export function term(said, codes, families, begins, key) {
  const sentence = said.message || plain(said);
  const page_ = said.rule && said.code !== "rows_by_missing" ? null : page(codes, said.code, families);
  const body = page_
    ? [
        el("p", {}, page_.meaning),
        el("p", {}, el("strong", {}, "Who can mend it: "), page_.who, ". ", page_.how),
        list(page_.commands.map((each) => el("code", {}, each)), { class: "commands" }),
      ]
    : el("p", {}, "A rule of the coalition's policy says so. Its text: ", el("code", {}, "comity coalition show --full"));
  return el(
    "details",
    { id: `term-${key}`, class: "term" },
    el(
      "summary",
      {},
      el("span", { class: "begins" }, begins, " "),
      said.rule ? ["the rule ", quoted(said.rule), " says "] : null,
      said.message ? [sentence, " "] : null,
      el("code", { class: "code" }, said.message ? said.code : sentence),
    ),
    el("div", { class: "meaning" }, body),
  );
}

function plain(said) {
  const listed = Object.entries(said.parameters || {}).map(([name, value]) => `${name} ${value}`);
  return listed.length ? `${said.code} (${listed.join(", ")})` : said.code;
}

/** Causes and needs of something, each once. */
export function terms(causes, needs, codes, key) {
  return [
    causes.map((each, i) => term(each, codes, ["cause", "node"], "because", `${key}-c${i}`)),
    needs.map((each, i) => [
      term(each, codes, ["need", "node"], "needs", `${key}-n${i}`),
      each.deed && !each.deed.startsWith("comity ") ? el("p", { class: "deed" }, each.deed) : null,
    ]),
  ];
}

/** What a member said: its vote as a word with a colour, or why there is none. */
export function vote(word, codes) {
  if (word in MODES) return badge(word);
  if (word === "silent") return badge("silent", "no answer");
  const meaning = page(codes, word, ["decline"]);
  return el("span", {}, badge("silent", "no vote"), " ", el("code", {}, word), meaning ? `: ${meaning.meaning}` : "");
}

/** A word that is also a colour: never a colour alone. */
export function badge(kind, words = kind) {
  return el("span", { class: `badge ${/^[a-z]+$/.test(kind) ? kind : "other"}` }, words);
}

/** Assets with their partitions, as a row of a listing has them. */
export function slots(rows) {
  return rows.map((row, i) => {
    const keys = row.partitions.filter((each) => each !== "").map((each) => visible(each));
    const more = row.items - row.partitions.length;
    const listed = keys.join(", ") + (more > 0 ? `, and ${more} more` : "");
    return [i ? ", " : "", el("bdi", { class: "asset" }, row.asset), listed ? ` (${listed})` : ""];
  });
}
