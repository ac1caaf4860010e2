// Shows one question after the other, and keeps an answer until the calibration has it.

import { falling } from "/curves.js";
import { Zoom } from "/zoom.js";

const LOOK_MS = 2000, AGAIN_MS = 1000, PATIENCE_MS = 8000;
const MOST_ENLARGED = 10;
const KEPT = "tinysaver-edge answers", NAME = "tinysaver-edge name";
const KEYS = { 1: "first", 2: "second", 3: "neither", " ": "unsure" };
const at = id => document.getElementById(id);
const wait = ms => new Promise(done => setTimeout(done, ms));

let by = null;          // who answers; null until that is known
let turn = null;        // the question on show
let seen = null;        // what the calibration told last
let busy = false;       // an answer is on its way
let ready = false;      // the picture is there to be judged
let ended = false;

function element(name, attributes, ...children) {
  const one = document.createElement(name);
  Object.assign(one, attributes);
  one.append(...children);
  return one;
}

// What the browser keeps for all windows of this address; where that is switched off, nothing.
function recall(key) {
  try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; }
}

function remember(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* then it is not kept */ }
}

// An answer stands here from the click until the calibration has it, whatever happens in between.
const nameOf = ({ by, question, repeat }) => `${question} ${repeat} ${by}`;

function keep(answer) { remember(KEPT, { ...recall(KEPT), [nameOf(answer)]: answer }); }

function release(answer) {
  const { [nameOf(answer)]: gone, ...others } = recall(KEPT);
  remember(KEPT, others);
}

class Refused extends Error {
  constructor(status, said) { super(said); this.status = status; }
}

async function ask(path, body) {
  const answer = await fetch(path, {
    cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
    ...(body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  if (answer.status === 401) { location.reload(); throw new Error("the token is needed"); }
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).trim());
  return answer.json();
}

// ---------------------------------------------------------------- pictures

const pictures = new Map();  // address → promise of an object URL; the one on show and the next few

function picture(address) {
  if (!pictures.has(address)) {
    pictures.set(address, fetch(address, { cache: "no-store" }).then(async answer => {
      if (!answer.ok) throw new Refused(answer.status, (await answer.text()).trim());
      return URL.createObjectURL(await answer.blob());
    }));
    pictures.get(address).catch(() => pictures.delete(address));
  }
  while (pictures.size > 4) {
    const [oldest, url] = pictures.entries().next().value;
    pictures.delete(oldest);
    url.then(URL.revokeObjectURL, () => {});
  }
  return pictures.get(address);
}

const zoom = new Zoom(at("screen"), at("picture"), one => { at("whole").hidden = !one.changed; });

// A picture of a few pixels, drawn over the whole screen, is harder to make out than a small one.
function notTooLarge(image) {
  const { clientWidth: width, clientHeight: height } = at("screen");
  const spare = (there, pixels) => Math.max(0, Math.floor((there - MOST_ENLARGED * pixels) / 2));
  image.style.padding = `${spare(height, image.naturalHeight)}px ${spare(width, image.naturalWidth)}px`;
}

async function showPicture(shown) {
  const image = at("picture"), nothing = at("nothing");
  zoom.reset();
  if (shown.picture === null) {
    image.hidden = true;
    nothing.hidden = false;
    nothing.textContent = `There is no picture here. It is sample ${shown.sample} of the records.`;
    return true;
  }
  try {
    const url = await picture(shown.picture);
    if (turn !== shown) return false;
    image.src = url;
    await image.decode();
    if (turn !== shown) return false;
    image.hidden = false;
    notTooLarge(image);
    nothing.hidden = true;
    return true;
  } catch (error) {
    if (turn !== shown) return false;
    image.hidden = true;
    nothing.hidden = false;
    nothing.textContent = error instanceof Refused ? error.message : "The picture does not come: trying again.";
    if (!(error instanceof Refused)) setTimeout(() => { if (turn === shown) showTurn(shown); }, AGAIN_MS);
    return false;
  }
}

// ---------------------------------------------------------------- what is shown

function enable() {
  const open = turn !== null && !busy && !ended;
  for (const one of at("answers").children) one.disabled = !open || !(ready || one.dataset.reply === "unsure");
  at("undo").disabled = at("overundo").disabled = busy || ended || !(seen && seen.undoable);
  at("finish").disabled = busy || ended;
}

async function showTurn(shown) {
  turn = shown;
  ready = false;
  for (const one of at("answers").children) one.classList.remove("said");
  at("desk").hidden = false;
  at("stand").hidden = shown === null;
  at("over").hidden = shown !== null;
  if (shown === null) { showOver(); enable(); return; }
  for (const place of ["first", "second"]) {
    at(place).textContent = shown[place];
    at(place).parentElement.classList.toggle("long", shown[place].length > 34);
  }
  at("spoken").textContent = `${shown.first}, or ${shown.second}?`;
  at("sample").textContent = shown.frames > 1 ? `${shown.file}, stands for ${shown.frames} frames` : shown.file;
  at("picture").alt = shown.file ? `The frame in question, ${shown.file}` : "The frame in question";
  enable();
  const there = await showPicture(shown);
  if (turn !== shown) return;
  ready = there;
  enable();
  for (const next of seen ? seen.ahead : []) picture(next).catch(() => {});
}

function showOver() {
  const told = seen;
  let title = "Nothing is left to ask", words = "No further answer can bring the certificate any further. Finish now: it is made from these answers.";
  if (ended) {
    title = "Finished";
    words = "The certificate is being made from the answers so far: look where the calibration was started. This page may be closed.";
  } else if (told && told.open > 0) {
    title = "You have seen all that is open";
    words = `${told.open === 1 ? "One question has" : `${told.open} questions have`} no answer that counts: nobody could tell. Somebody else may know; if not, they count as the worst. Finish, or undo.`;
  } else if (told && told.asked === 0) {
    title = "There is nothing to ask";
    words = "No answer of yours could change the certificate. Finish to have it made.";
  }
  at("overtitle").textContent = title;
  at("overwords").textContent = words;
  at("overundo").hidden = ended || !(told && told.undoable);
}

const share = part => `${(100 * part).toFixed(0)}\u00a0%`;
const points = value => String(+value.toPrecision(3));
const upTo = (value, digits) => (Math.ceil(value * 10 ** digits - 1e-6) / 10 ** digits).toFixed(digits);  // no bound looks better than it is

function showSeen(told) {
  seen = told;
  if (told.finished) ended = true;
  const whole = Math.max(told.target_questions, told.asked);
  at("progress").textContent = ended ? "finished"
    : told.asked < told.target_questions ? `${told.asked} of about ${told.target_questions} answered` : `${told.asked} answered`;
  at("progress").className = ended ? "pill good" : "pill";
  at("bar").firstElementChild.style.width = `${whole ? 100 * told.asked / whole : 100}%`;
  at("bar").setAttribute("aria-valuemax", whole);
  at("bar").setAttribute("aria-valuenow", told.asked);
  at("who").hidden = by === null;
  at("whois").textContent = by || "nobody named";
  showStanding(told);
  at("people").replaceChildren(...told.people.filter(({ name }) => name).map(({ name }) => element("option", { value: name })));
  at("facts").replaceChildren(...facts(told).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  showDiffering(told);
  if (turn === null && by !== null) showOver();
  enable();
}

function showDiffering({ disagreed, differing }) {
  at("differ").hidden = !disagreed;
  at("differs").textContent = `Answers differ on ${disagreed === 1 ? "one question" : `${disagreed} questions`}`;
  if (!at("differ").open) { at("differing").replaceChildren(); return; }
  const words = JSON.stringify(differing);
  if (at("differing").dataset.words === words && at("differing").childElementCount) return;
  at("differing").dataset.words = words;
  at("differing").replaceChildren(...differing.slice().reverse().map(({ file, picture, said }) => element("li", {},
    ...(picture === null ? [] : [element("img", { src: picture, alt: `The frame of ${file}`, loading: "lazy" })]),
    element("span", {}, ...said.flatMap(({ name, answer }, place) => [
      ...(place ? [element("br", {})] : []), element("span", { className: "soft" }, `${name || "nobody named"}: `), answer])))));
}

function facts({ open, unsure, disagreed, repeats, interval, errs, people }) {
  const rows = [["left for the next step", `${open}`]];
  if (unsure) rows.push(["nobody could tell (the worst counts)", `${unsure}`]);
  if (disagreed) rows.push(["answered differently (the worst counts)", `${disagreed}`]);
  if (repeats.of) rows.push(["asked twice, answered alike", `${repeats.agreed} of ${repeats.of}`]);
  if (interval) rows.push(["alike, by 90\u00a0% confidence", `${share(interval[0])} to ${share(interval[1])}`]);
  if (errs) rows.push(["answers that are wrong, if at random", `${share(errs[0])} to ${share(errs[1])}`]);
  if (people.length > 1) rows.push(...people.map(({ name, answers }) => [name ? `by ${name}` : "by nobody named", `${answers}`]));
  return rows;
}

function showStanding({ threshold, cost, target_cost, bound_points, max_drop_points, confidence, curve, asked, target_questions }) {
  const total = Math.max(target_questions, asked);
  const worth = threshold === null ? "–" : upTo(cost, 3), lost = bound_points >= 100 ? "–" : upTo(bound_points, 2);
  at("cost").textContent = worth;
  at("costwords").textContent = max_drop_points === null ? `planned ${points(target_cost)} of the large model’s, by budget`
    : threshold === null ? "nothing is certified yet" : `of the large model’s; planned ${points(target_cost)}`;
  at("bound").textContent = lost;
  at("boundwords").textContent = `points${confidence ? ` by ${share(confidence)} confidence` : ""}${max_drop_points === null ? "" : `; wanted ${points(max_drop_points)}`}`;
  at("sofar").textContent = `cost ${worth} · lost ≤ ${lost}`;
  falling(at("costs"), curve, { of: "cost", total, goal: target_cost, words: "Cost per frame, by questions answered" });
  falling(at("bounds"), curve, { of: "bound", total, goal: max_drop_points ?? undefined, words: "Bound on the accuracy lost, by questions answered" });
}

function trouble(words) {
  at("trouble").hidden = words === null;
  if (words !== null && at("trouble").textContent !== words) at("trouble").textContent = words;
}

const GONE = "The calibration does not answer: it has ended, or the connection is lost.";

function lost(more) { trouble(`${GONE} ${more} To go on, start it again as before; this page then continues by itself.`); }

// ---------------------------------------------------------------- talking

// Send until it has arrived. What was refused is told, and the next question fetched.
async function send(path, body, held) {
  for (;;) {
    try {
      const told = await ask(path, body);
      trouble(null);
      return told;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) { trouble(error.message); return null; }
      if (error instanceof Refused) trouble(error.message); else lost(held);
      await wait(AGAIN_MS);
    }
  }
}

function take(told) {
  showSeen(told.seen);
  return showTurn(told.turn);
}

async function next() {
  busy = true; enable();
  const told = await send("/turn", { by }, "All answers so far are kept.");
  busy = false;
  if (told === null) { await showTurn(null); return; }
  opened = told.seen.open;
  await take(told);
}

async function deliver(answer) {
  busy = true; enable();
  keep(answer);
  const told = await send("/answer", answer, "All answers so far are kept, your last one in this page.");
  release(answer);
  busy = false;
  if (told === null) await again(); else if (answer.by === by) await take(told);
}

// After a refusal its line stays until something is answered.
async function again() {
  const line = at("trouble").textContent;
  await next();
  trouble(line);
}

function answer(reply) {
  if (turn === null || busy || ended || !(ready || reply === "unsure")) return;
  at("answers").querySelector(`[data-reply="${reply}"]`).classList.add("said");
  const told = { first: turn.replies[0], second: turn.replies[1] }[reply] ?? reply;
  at("stand").focus({ preventScroll: true });
  deliver({ by, question: turn.question, repeat: turn.repeat, reply: told });
}

async function undo() {
  if (busy || ended || !(seen && seen.undoable)) return;
  busy = true; enable();
  const told = await send("/undo", { by }, "All answers so far are kept.");
  busy = false;
  if (told === null) await again(); else await take(told);
  if (turn !== null) at("stand").focus({ preventScroll: true });
}

let opened = 0;         // questions that were open when this window last asked for one in vain

async function look() {
  for (;;) {
    await wait(LOOK_MS);
    if (document.hidden || busy || by === null || ended) continue;
    const before = turn;
    try {
      const told = await ask("/seen", { by, question: before?.question, repeat: before?.repeat });
      if (busy || turn !== before) continue;
      if (at("trouble").textContent.startsWith(GONE)) trouble(null);
      showSeen(told.seen);
      const waits = turn === null && !at("desk").hidden && told.seen.open > opened;
      opened = told.seen.open;
      if (!ended && (told.stale || waits)) await next();
    } catch (error) {
      if (!ended && !busy && !(error instanceof Refused)) lost("All answers are kept.");
    }
  }
}

// ---------------------------------------------------------------- who, keys, buttons

// A name that was chosen here goes before the one that the calibration was started with.
let startedAs = null;

async function enter(name) {
  by = name;
  remember(NAME, { name, startedAs });
  at("asking").hidden = true;
  for (const answer of Object.values(recall(KEPT))) await deliver(answer);
  if (turn === null) await next();
}

at("name").addEventListener("submit", event => {
  event.preventDefault();
  enter(at("by").value.trim());
});

at("whois").addEventListener("click", () => {
  if (busy) return;
  by = null; turn = null;
  at("desk").hidden = at("who").hidden = true;
  at("asking").hidden = false;
  at("by").value = recall(NAME).name ?? "";
  at("by").select();
  at("by").focus();
});

for (const one of at("answers").children) one.addEventListener("click", () => answer(one.dataset.reply));
at("differ").addEventListener("toggle", () => { if (seen) showDiffering(seen); });
at("undo").addEventListener("click", undo);
at("overundo").addEventListener("click", undo);
at("closer").addEventListener("click", () => zoom.step(1.6));
at("farther").addEventListener("click", () => zoom.step(1 / 1.6));
at("whole").addEventListener("click", () => zoom.reset());

at("finish").addEventListener("click", () => {
  const left = seen.open
    ? "What is not answered counts as the worst. Answers are kept: calibrating again goes on from here."
    : "No further answer can bring it any further.";
  at("surewords").textContent = seen.max_drop_points === null && seen.bound_points < 100
    ? `Proven so far: at most ${upTo(seen.bound_points, 2)} points lost. ${left}`
    : seen.threshold === null
    ? `Nothing is certified by the answers so far. ${left}`
    : `Certified so far: at most ${points(seen.max_drop_points)} points lost, at cost ${upTo(seen.cost, 3)}. ${left}`;
  at("sure").returnValue = "";
  at("sure").showModal();
});

at("sure").addEventListener("close", async () => {
  if (at("sure").returnValue !== "yes") return;
  busy = true; enable();
  const told = await send("/finish", { by }, "All answers are kept.");
  busy = false;
  if (told !== null) { ended = true; await take(told); at("over").focus(); }
});

document.addEventListener("keydown", event => {
  if (event.repeat || event.altKey || event.metaKey || at("sure").open || by === null) return;
  const chosen = event.target;
  if (chosen instanceof HTMLInputElement) return;
  const back = event.key === "u" || event.key === "U" || event.key === "Backspace";
  if (event.ctrlKey ? event.key === "z" : back) { event.preventDefault(); undo(); return; }
  if (event.ctrlKey) return;
  // Whoever walks through the buttons with Tab presses them with the space bar, as everywhere.
  if (event.key === " " && chosen instanceof HTMLButtonElement && chosen.matches(":focus-visible")) return;
  if (event.key in KEYS) { event.preventDefault(); answer(KEYS[event.key]); }
  else if (event.key === "+" || event.key === "=") zoom.step(1.6);
  else if (event.key === "-") zoom.step(1 / 1.6);
  else if (event.key === "0" || event.key === "Escape") zoom.reset();
});

// A page that comes back out of the browser's memory shows what was; ask anew.
addEventListener("pageshow", event => { if (event.persisted) location.reload(); });
addEventListener("resize", () => { zoom.reset(); notTooLarge(at("picture")); if (seen) showStanding(seen); });

(async () => {
  const told = await send("/seen", { by: "" }, "All answers are kept.");
  if (told === null) return;
  showSeen(told.seen);
  startedAs = told.as;
  const last = recall(NAME), chosen = last.startedAs === startedAs ? last.name : null;
  const known = chosen ?? startedAs;
  if (told.seen.finished) { by = known ?? ""; await showTurn(null); return; }
  if (known !== null) await enter(known);
  else { at("asking").hidden = false; at("by").focus(); }
  look();
})();
