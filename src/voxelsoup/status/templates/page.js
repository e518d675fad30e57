"use strict";

// What the reader has chosen stands in the address, so that it outlives a reload and can be sent
// to somebody: #sort=training_loss&down=1&states=running,failed&text=lr%3D0.01&run=fold0/stem
const view = { sort: "", down: false, states: new Set(), text: "", run: "" };

const find = (selector) => document.querySelector(selector);
const findAll = (selector) => [...document.querySelectorAll(selector)];

const rows = findAll("tbody tr");
const heads = findAll("thead th");
const sortable = heads.filter((head) => head.dataset.key);
const chips = findAll(".chips button");
const states = chips.map((chip) => chip.dataset.state);
const made = Date.parse(document.body.dataset.made);
const refresh = 1000 * Number(document.body.dataset.refresh);

// --- the view and the address ---------------------------------------------------------------

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  view.sort = asked.get("sort") ?? "";
  view.down = asked.has("down");
  view.states = new Set((asked.get("states") ?? "").split(",").filter((s) => states.includes(s)));
  view.text = asked.get("text") ?? "";
  view.run = asked.get("run") ?? "";
}

function writeAddress() {
  const asked = new URLSearchParams();
  if (view.sort) asked.set("sort", view.sort);
  if (view.sort && view.down) asked.set("down", "1");
  if (view.states.size) asked.set("states", [...view.states].join());
  if (view.text) asked.set("text", view.text);
  if (view.run) asked.set("run", view.run);
  const address = location.href.replace(/#.*/, "");
  history.replaceState(history.state, "", `${address}#${asked}`);
}

function change(changes) {
  Object.assign(view, changes);
  writeAddress();
  show();
}

// --- sorting and filtering ------------------------------------------------------------------

/** What a cell is sorted by; null where nothing is known. */
function valueOf(cell, kind) {
  if (kind === "state") return states.indexOf(cell.parentElement.dataset.state);
  if (kind === "time") return cell.firstChild ? Date.parse(cell.firstChild.dateTime) : null;
  const text = cell.textContent.trim();
  if (text === "") return null;
  const number = parseFloat(text);
  return kind === "number" && !Number.isNaN(number) ? number : text;
}

const collator = new Intl.Collator("en");
const numeral = /(\d+(?:\.\d+)?(?:e[+-]?\d+)?)/;

/** Numbers before texts; texts as people sort them: "lr 0.002" before "lr 0.01", h9 before h10. */
function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  const [words, others] = [one.split(numeral), other.split(numeral)];
  for (let i = 0; i < Math.min(words.length, others.length); i++) {
    // Every second part is a number.
    const difference = i % 2 ? words[i] - others[i] : collator.compare(words[i], others[i]);
    if (difference) return difference;
  }
  return words.length - others.length;
}

/** All rows as asked for; those without a value last in both directions, equal ones as written. */
function ordered() {
  const head = sortable.find((head) => head.dataset.key === view.sort);
  if (!head) return rows;
  const column = heads.indexOf(head);
  const values = rows.map((row) => valueOf(row.cells[column], head.dataset.kind));
  const numbers = rows.map((_, number) => number);
  const known = numbers.filter((number) => values[number] !== null);
  const sign = view.down ? -1 : 1;
  known.sort((one, other) => sign * compare(values[one], values[other]) || one - other);
  const unknown = numbers.filter((number) => values[number] === null);
  return [...known, ...unknown].map((number) => rows[number]);
}

/** What the filter looks at in a row: everything that is a name, and settings as key=value. */
function wordsOf(row) {
  const words = [row.id];
  sortable.forEach((head) => {
    const text = row.cells[heads.indexOf(head)].textContent;
    const key = head.title.includes(".") ? head.title : head.dataset.key;
    if (text) words.push(`${key}=${text}`);
  });
  return words.join("\n").toLowerCase();
}

const wordsOfRows = new Map();

function matches(row) {
  if (view.run === row.id) return true; // what a link points at is always there
  if (view.states.size && !view.states.has(row.dataset.state)) return false;
  const terms = view.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!terms.length) return true;
  if (!wordsOfRows.has(row)) wordsOfRows.set(row, wordsOf(row));
  return terms.every((term) => wordsOfRows.get(row).includes(term));
}

let shownOrder = "";

function show() {
  const order = `${view.sort} ${view.down}`;
  if (order !== shownOrder) find("tbody").append(...ordered());
  shownOrder = order;
  let count = 0;
  for (const row of rows) {
    row.hidden = !matches(row);
    row.classList.toggle("linked", row.id === view.run);
    count += !row.hidden;
  }
  for (const head of sortable) {
    const direction = view.down ? "descending" : "ascending";
    head.ariaSort = head.dataset.key === view.sort ? direction : "none";
  }
  for (const chip of chips) {
    const pressed = view.states.has(chip.dataset.state);
    chip.ariaPressed = String(pressed);
    if (pressed) chip.hidden = false;
  }
  if (find("#text").value !== view.text) find("#text").value = view.text;
  find("#order").value = view.sort;
  find("#direction").hidden = !view.sort;
  find("#direction").textContent = view.down ? "↓" : "↑";
  find("#shown").textContent = count === rows.length ? "" : `${count} of ${rows.length} shown`;
}

function reveal() {
  if (view.run) document.getElementById(view.run)?.scrollIntoView({ block: "center" });
}

// --- what the reader does -------------------------------------------------------------------

/** Upwards, downwards, and then as the study has them. */
function sortBy(key) {
  if (view.sort !== key) change({ sort: key, down: false });
  else if (!view.down) change({ down: true });
  else change({ sort: "", down: false });
}

function listen() {
  for (const head of sortable) {
    head.firstChild.addEventListener("click", () => sortBy(head.dataset.key));
  }
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const chosen = new Set(view.states);
      if (!chosen.delete(chip.dataset.state)) chosen.add(chip.dataset.state);
      change({ states: chosen });
    });
  }
  find("tbody").addEventListener("click", (event) => {
    const row = event.target.closest("a")?.closest("tr");
    if (!row) return;
    event.preventDefault();
    change({ run: view.run === row.id ? "" : row.id });
  });
  find("#text").addEventListener("input", (event) => change({ text: event.target.value }));
  find("#order").addEventListener("change", (event) => {
    change({ sort: event.target.value });
    event.target.blur(); // a made choice does not hold up the refresh any more
  });
  find("#direction").addEventListener("click", () => change({ down: !view.down }));
  addEventListener("hashchange", () => {
    readAddress();
    show();
    reveal();
  });
}

// --- words and times for this reader ----------------------------------------------------------

function tellTimes() {
  const clock = { hour: "2-digit", minute: "2-digit" };
  const today = new Intl.DateTimeFormat("en-GB", clock);
  const another = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", ...clock });
  const inFull = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "long" });
  const day = new Date().toDateString();
  for (const time of findAll("time")) {
    const at = new Date(time.dateTime);
    time.textContent = (at.toDateString() === day ? today : another).format(at);
    time.title = inFull.format(at);
  }
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  find("#zone").textContent = `, times of ${zone}`;
}

/** On a phone every row is a card, and each of its lines begins with the head of its column. */
function labelLines() {
  const sheet = document.styleSheets[0];
  const small = [...sheet.cssRules].find((rule) => rule.conditionText?.includes("max-width"));
  heads.forEach((head, number) => {
    const line = small.insertRule(`tbody td:nth-child(${number + 1})::before {}`);
    small.cssRules[line].style.content = JSON.stringify(head.textContent);
  });
  find("#order").append(new Option("as in the study", ""));
  for (const head of sortable) find("#order").append(new Option(head.textContent, head.dataset.key));
}

// --- refreshing -------------------------------------------------------------------------------

/** What finds an element again in the page that is loaded next; "" for what is not in use. */
function selectorOf(element) {
  const head = element.closest("[data-key]");
  const row = element.closest("tbody tr");
  if (element.id) return `#${element.id}`;
  if (head) return `[data-key="${CSS.escape(head.dataset.key)}"] button`;
  if (row) return `[id="${CSS.escape(row.id)}"] a`;
  return chips.includes(element) ? `.chips [data-state="${element.dataset.state}"]` : "";
}

/** Where the reader was, for the page that is loaded next. */
function remember() {
  const focus = selectorOf(document.activeElement);
  const place = [scrollX, scrollY, find("main").scrollLeft, find("main").scrollTop];
  history.replaceState({ place, focus, caret: find("#text").selectionStart }, "");
}

function goBack() {
  history.scrollRestoration = "manual";
  if (!history.state?.place) return reveal();
  const { place, focus, caret } = history.state;
  if (focus) find(focus)?.focus({ preventScroll: true });
  if (focus === "#text") find("#text").setSelectionRange(caret, caret);
  scrollTo(place[0], place[1]);
  find("main").scrollTo(place[2], place[3]);
}

function tellAge() {
  const age = Date.now() - made;
  const stale = age > 3 * refresh + 10_000 && !("ended" in document.body.dataset);
  const minutes = Math.round(age / 60_000);
  const words = minutes < 2 ? `${Math.round(age / 1000)} seconds` : `${minutes} minutes`;
  find("#stale").hidden = !stale;
  find("#stale").textContent = stale
    ? `Stale: this page is ${minutes < 120 ? words : `${Math.round(minutes / 60)} hours`} old. ` +
      "Is voxelsoup status still running?"
    : "";
}

async function reload() {
  tellAge();
  // Not while the reader uses it, and not in a hidden tab.
  const selecting = !getSelection().isCollapsed && find("main").contains(getSelection().anchorNode);
  const choosing = document.activeElement === find("#order");
  if (document.hidden || selecting || choosing) return;
  // A server that is away would leave the reader with the browser's own error page for good.
  if (location.protocol !== "file:") {
    try {
      await fetch(location.href, { method: "HEAD", cache: "no-store" });
    } catch {
      return;
    }
  }
  remember();
  location.reload();
}

readAddress();
tellTimes();
labelLines();
listen();
show();
document.body.classList.add("ready");
goBack();
tellAge();
setInterval(reload, refresh);
addEventListener("beforeunload", remember); // a reload by hand
document.addEventListener("visibilitychange", () => Date.now() - made > refresh && reload());
