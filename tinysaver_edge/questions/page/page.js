// Shows one question after the other, and keeps an answer until the calibration has it.

import { falling } from "/curves.js";
import { Zoom } from "/zoom.js";

const LOOK_MS = 2000, AGAIN_MS = 1000, PATIENCE_MS = 8000;
const KEPT = "tinysaver-edge answer", NAME = "tinysaver-edge name";
const KEYS = { 1: "first", 2: "second", 3: "neither", " ": "unsure" };
const at = id => document.getElementById(id);
const wait = ms => new Promise(done => setTimeout(done, ms));
const sign = () => Array.from(crypto.getRandomValues(new Uint32Array(2)), one => one.toString(36)).join("");

const tab = sign();     // which window asks: two of one person are not shown the same question
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

// What a browser keeps may be switched off; the page then works without.
const kept = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value); } catch { /* not kept */ } },
};

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

const mine = more => ({ by, tab, ...more });

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

const zoom = new Zoom(at("screen"), at("picture"), () => { at("whole").hidden = !zoom.changed; });

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
  at("sample").textContent = shown.file;
  at("picture").alt = shown.file ? `The frame in question, ${shown.file}` : "The frame in question";
  enable();
  const there = await showPicture(shown);
  if (turn !== shown) return;
  ready = there;
  enable();
  for (const next of seen ? seen.ahead : []) picture(next).catch(() => {});
}

function showOver() {
  const told = seen, more = at("more");
  more.hidden = true;
  let title = "All questions are answered", words = "Finish now: the certificate is made from these answers.";
  if (ended) {
    title = "Finished";
    words = "The certificate is being made from the answers so far: look where the calibration was started. This page may be closed.";
  } else if (told && told.questions === 0) {
    title = "There is nothing to ask";
    words = "The cascade and the large model give the same answer wherever it matters. Finish to certify.";
  } else if (told && told.elsewhere > 0) {
    title = "The rest is with others";
    words = `${told.elsewhere === 1 ? "One question is" : `${told.elsewhere} questions are`} on show in another window. They come back here if nobody answers them.`;
  }
  if (!ended && told && told.second > 0) {
    more.hidden = false;
    more.textContent = `Answer what others answered too (${told.second})`;
    words += " A second opinion shows how far the answers can be trusted: where two people differ, the worst counts.";
  }
  at("overtitle").textContent = title;
  at("overwords").textContent = words;
  at("overundo").hidden = ended;
}

const share = part => `${(100 * part).toFixed(0)}\u00a0%`;

function showSeen(told) {
  seen = told;
  if (told.finished) ended = true;
  at("progress").textContent = ended ? "finished" : `${told.answered} of ${told.questions} answered`;
  at("progress").className = ended ? "pill good" : "pill";
  at("who").hidden = !by;
  at("whois").textContent = by || "";
  showStanding(told);
  at("people").replaceChildren(...told.people.map(({ name }) => element("option", { value: name })));
  const rows = [["left", `${told.questions - told.answered}`]];
  if (told.unsure) rows.push(["can’t tell, counted as the worst", `${told.unsure}`]);
  if (told.repeats.asked) rows.push(["asked twice, answered the same", `${told.repeats.agreed} of ${told.repeats.asked}`]);
  if (told.disagreements) rows.push(["people differ, counted as the worst", `${told.disagreements}`]);
  if (told.people.length > 1 || (told.people.length === 1 && told.people[0].name !== by))
    rows.push(...told.people.map(({ name, answers }) => [name || "without a name", `${answers}`]));
  at("facts").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  if (turn === null && by !== null) showOver();
  enable();
}

function showStanding({ standing, curve, questions, goal }) {
  const certified = standing.cost !== null;
  at("cost").textContent = certified ? standing.cost.toFixed(3) : "–";
  at("costwords").textContent = certified
    ? `of the large model’s, which is asked on ${share(standing.escalation)}` : "nothing is certified yet";
  at("bound").textContent = standing.bound === null ? "–" : `${standing.bound.toFixed(2)}`;
  at("boundwords").textContent = `points, with ${share(goal.confidence)} confidence; wanted ${goal.points}`;
  falling(at("costs"), curve, { of: "cost", total: questions, words: "Cost per frame, by questions answered" });
  falling(at("bounds"), curve, { of: "bound", total: questions, goal: goal.points, words: "Bound on the accuracy lost, by questions answered" });
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
  const told = await send("/turn", mine({ second: wantsSecond }), "All answers so far are kept.");
  busy = false;
  if (told === null) { turn = null; showOver(); enable(); return; }
  await take(told);
}

async function deliver(answer) {
  busy = true; enable();
  kept.set(KEPT, JSON.stringify(answer));
  const told = await send("/answer", { ...answer, tab, second: wantsSecond }, "All answers so far are kept, your last one in this page.");
  kept.set(KEPT, null);
  busy = false;
  if (told === null) await again(); else await take(told);
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
  const told = await send("/undo", mine({ second: wantsSecond }), "All answers so far are kept.");
  busy = false;
  if (told === null) await again(); else await take(told);
  if (turn !== null) at("stand").focus({ preventScroll: true });
}

let wantsSecond = false;

async function look() {
  for (;;) {
    await wait(LOOK_MS);
    if (document.hidden || busy || by === null || ended) continue;
    const before = turn;
    try {
      const told = await ask("/seen", mine({}));
      if (busy || turn !== before) continue;
      if (at("trouble").textContent.startsWith(GONE)) trouble(null);
      showSeen(told.seen);
      if (turn === null && !ended && told.seen.open > 0) await next();
    } catch (error) {
      if (!ended && !busy && !(error instanceof Refused)) lost("All answers are kept.");
    }
  }
}

// ---------------------------------------------------------------- who, keys, buttons

function enter(name) {
  by = name;
  kept.set(NAME, name);
  at("asking").hidden = true;
  start();
}

async function start() {
  const held = kept.get(KEPT);
  if (held !== null) {
    try { await deliver(JSON.parse(held)); return; } catch { kept.set(KEPT, null); busy = false; }
  }
  await next();
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
  at("by").select();
  at("by").focus();
});

for (const one of at("answers").children) one.addEventListener("click", () => answer(one.dataset.reply));
at("undo").addEventListener("click", undo);
at("overundo").addEventListener("click", undo);
at("more").addEventListener("click", () => { wantsSecond = true; next(); });
at("closer").addEventListener("click", () => zoom.step(1.6));
at("farther").addEventListener("click", () => zoom.step(1 / 1.6));
at("whole").addEventListener("click", () => zoom.reset());

at("finish").addEventListener("click", () => {
  const left = seen.questions - seen.answered;
  at("surewords").textContent = left
    ? `${left} ${left === 1 ? "question is" : "questions are"} not answered and ${left === 1 ? "counts" : "count"} as the worst. Answers are kept: calibrating again goes on from here.`
    : "All questions are answered.";
  at("sure").showModal();
});

at("sure").addEventListener("close", async () => {
  if (at("sure").returnValue !== "yes") return;
  busy = true; enable();
  const told = await send("/finish", mine({}), "All answers are kept.");
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
addEventListener("resize", () => { if (seen) showStanding(seen); });

// A window that goes gives its question back at once.
addEventListener("pagehide", () => { if (by !== null && turn !== null) navigator.sendBeacon("/leave", new Blob([JSON.stringify(mine({}))], { type: "application/json" })); });

(async () => {
  const told = await send("/seen", { by: "", tab }, "All answers are kept.");
  if (told === null) return;
  showSeen(told.seen);
  const known = kept.get(NAME) ?? told.as;
  if (told.seen.finished) { by = known ?? ""; await showTurn(null); return; }
  if (known !== null) { enter(known); }
  else { at("asking").hidden = false; at("by").focus(); }
  look();
})();
