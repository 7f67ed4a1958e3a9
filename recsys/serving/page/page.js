"use strict";
// Texts of items and users only ever become text nodes: nothing in them is read as HTML.
const $ = (id) => document.getElementById(id);
const history = [];  // {item_id, title}, oldest first
const waiting = {};

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.title}: ${answer.detail}`);
  return answer;
}

async function shown(work) {
  try {
    await work();
    $("problem").hidden = true;
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
}

// The newest question wins: an answer that comes late is dropped.
async function latest(name, question) {
  const ticket = (waiting[name] = (waiting[name] || 0) + 1);
  const answer = await question();
  return ticket === waiting[name] ? answer : null;
}

function element(tag, text, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.textContent = text;
  return made;
}

function whose() {
  const user = $("user").value.trim();
  if (history.length || !user) return { history: history.map((item) => item.item_id) };
  return { user_id: user };
}

function card(item) {
  const row = document.createElement("li");
  const add = element("button", item.title || item.item_id, { className: "add", type: "button" });
  add.title = "add to the history";
  add.addEventListener("click", () => addItem(item));
  row.append(add);
  if (item.why) row.append(element("span", item.why.sentence, { className: "why" }));
  return row;
}

function addItem(item) {
  history.push(item);
  showHistory();
}

function showHistory() {
  $("history").replaceChildren(...history.map((item, place) => {
    const row = element("li", item.title || item.item_id);
    const remove = element("button", "\u00d7", { className: "remove", type: "button" });
    remove.setAttribute("aria-label", `remove ${item.title || item.item_id}`);
    remove.addEventListener("click", () => { history.splice(place, 1); showHistory(); });
    row.append(remove);
    return row;
  }));
  $("no-history").hidden = history.length > 0;
  shown(recommend);
  if ($("text").value.trim()) shown(search);
}

async function recommend() {
  const started = performance.now();
  const body = { ...whose(), top_k: 10, explain: true, diversity: Number($("diversity").value) };
  const answer = await latest("recommend", () => ask("/v1/recommend", body));
  if (!answer) return;
  $("recommended").replaceChildren(...answer.items.map(card));
  const origin = answer.source === "popular" ? "popular" : "by the model";
  $("took").textContent = `${origin}, ${Math.round(performance.now() - started)} ms`;
}

async function search() {
  const text = $("text").value.trim();
  const body = { ...whose(), text, top_k: 10 };
  const [personal, plain] = await Promise.all([
    ask("/v1/search", { ...body, personal: 0.5 }),
    ask("/v1/search", { ...body, personal: 0 }),
  ]);
  $("personal").replaceChildren(...personal.items.map(card));
  $("plain").replaceChildren(...plain.items.map(card));
  $("understood").textContent = described(plain);
}

function described(answer) {
  const told = (answer.query_understanding?.slots || [])
    .map((slot) => `${slot.negated ? "not " : ""}${slot.kind}: ${slot.value}`);
  if (answer.source === "popular") told.unshift("nothing fits; these are popular");
  return told.join(" \u00b7 ");
}

async function suggest(input, list, onItem) {
  const text = input.value.trim();
  if (!text) return;
  const answer = await latest(list, () => ask(`/v1/suggest?text=${encodeURIComponent(text)}`));
  if (!answer) return;
  const chosen = onItem && answer.suggestions.find((s) => s.item_id && s.text === input.value);
  if (chosen) {
    input.value = "";
    $(list).replaceChildren();
    onItem({ item_id: chosen.item_id, title: chosen.text });
    return;
  }
  const fitting = answer.suggestions.filter((s) => !onItem || s.item_id);
  $(list).replaceChildren(...fitting.map((s) => element("option", "", { value: s.text })));
}

async function tellModel() {
  const model = await ask("/v1/model");
  const facts = {
    "model version": model.model_version, "index version": model.index_version,
    "code version": model.code_version, items: model.num_items,
    "language model": model.config.model?.backbone,
  };
  $("facts").replaceChildren(...Object.entries(facts).flatMap(
    ([name, value]) => [element("dt", name), element("dd", value ?? "")]));
  $("health").textContent = `ready, ${model.num_items} items`;
}

function later(work, name) {
  return () => { clearTimeout(waiting[name]); waiting[name] = setTimeout(() => shown(work), 150); };
}

$("add").addEventListener("input", later(() => suggest($("add"), "found", addItem), "typing add"));
$("text").addEventListener("input", later(() => suggest($("text"), "suggested"), "typing text"));
$("search-form").addEventListener("submit", (event) => { event.preventDefault(); shown(search); });
$("user").addEventListener("change", () => shown(recommend));
$("key").addEventListener("change", () => shown(async () => { await tellModel(); await recommend(); }));
$("diversity").addEventListener("change", () => shown(recommend));
$("clear").addEventListener("click", () => { history.length = 0; showHistory(); });
shown(async () => { await tellModel(); await recommend(); });
