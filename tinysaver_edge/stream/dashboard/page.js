// Asks the stream for its state once a second and for pictures as they come.

import { lines, stacked } from "/charts.js";

const STATE_MS = 1000, PICTURE_MS = 80, PATIENCE_MS = 4000;
const at = id => document.getElementById(id);
const wait = ms => new Promise(done => setTimeout(done, ms));
const percent = part => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)}\u00a0%`;

let chosen = null;      // the source that is shown
let shownNumber = 0;    // and the picture of it
let pictureUrl = null;

function element(name, attributes, ...children) {
  const one = document.createElement(name);
  Object.assign(one, attributes);
  one.append(...children);
  return one;
}

function span(seconds) {
  const whole = (unit, name) => `${Math.floor(unit)}\u00a0${name}`;
  if (seconds < 60) return whole(seconds, "s");
  if (seconds < 3600) return whole(seconds / 60, "min");
  if (seconds < 86400) return `${whole(seconds / 3600, "h")} ${whole(seconds % 3600 / 60, "min")}`;
  return `${whole(seconds / 86400, "d")} ${whole(seconds % 86400 / 3600, "h")}`;
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401) { location.reload(); throw new Error("the token is needed"); }
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer;
}

function showState(state) {
  at("state").textContent = state.state;
  at("state").className = `pill ${state.ready ? "good" : "bad"}`;
  at("uptime").textContent = `running for ${span(state.uptime_s)}`;
  showSources(state.sources);
  showRates(state);
  showDrift(state.drift);
  showPromise(state.promise);
  showHosts(state.hosts);
  showLatency(state.latency);
  stacked(at("answers"), state.timeline, ["accepted", "escalated", "degraded"]);
  lines(at("ages"), state.timeline, [
    { name: "p50", values: state.timeline.p50_ms }, { name: "p95", values: state.timeline.p95_ms }]);
  showThumbnails(state.escalated);
  at("events").replaceChildren(...state.events.map(({ age_s, severity, words }) =>
    element("li", { className: severity >= 30 ? "warning" : "" },
      element("time", {}, `${span(age_s)} ago`), element("span", {}, words))));
}

function showSources(sources) {
  if (!sources.some(({ id }) => id === chosen)) choose(sources.length ? sources[0].id : null);
  const stale = sources.some(({ id, connected }) => id === chosen && !connected);
  at("stale").hidden = !stale;
  at("screen").classList.toggle("stale", stale);
  const old = at("sources"), focused = old.contains(document.activeElement) ? document.activeElement.textContent : null;
  const made = (sources.length > 1 || sources.some(one => !one.connected) ? sources : []).map(one => {
    const button = element("button", { type: "button" }, one.id);
    button.className = one.ended ? "ended" : one.connected ? "" : "lost";
    button.setAttribute("aria-pressed", String(one.id === chosen));
    button.addEventListener("click", () => choose(one.id));
    return button;
  });
  old.replaceChildren(...made);
  made.find(one => one.textContent === focused)?.focus();
}

function choose(id) {
  if (id === chosen) return;
  chosen = id;
  shownNumber = 0;
  at("picture").hidden = at("answer").hidden = true;
  at("nothing").hidden = false;
  for (const one of at("sources").children) one.setAttribute("aria-pressed", String(one.textContent === id));
}

function showRates({ timeline, totals, settled }) {
  const recent = name => timeline[name].slice(-6, -1);
  const mean = name => recent(name).reduce((sum, one) => sum + one, 0) / 5;
  const rate = mean("accepted") + mean("escalated") + mean("degraded");
  at("rate").textContent = rate >= 10 ? rate.toFixed(0) : rate.toFixed(1);
  const all = totals.accepted + totals.escalated + totals.degraded;
  for (const [id, name] of [["accepted", "accepted"], ["escalated", "escalated"], ["degradedrate", "degraded"]])
    at(id).textContent = all ? percent(totals[name] / all) : "–";
  at("settled").hidden = settled.length < 3;  // of two stages the tiles say it
  at("settled").textContent = `Answers of ${settled.map(one => `${one.model} ${percent(one.answers / all)}`).join(", ")}.`;
}

function showDrift(drift) {
  if (drift === null) {
    at("drift").replaceChildren(element("p", { className: "soft" }, "Not watched."));
    return;
  }
  const meter = element("div", { className: drift.alarms ? "meter alarm" : "meter" }, element("i", {}));
  meter.firstChild.style.width = `${100 * Math.min(1, Math.max(0.01, drift.alarms ? 1 : drift.evidence))}%`;
  const verdict = drift.alarms
    ? `Alarm: ${drift.last_alarm ?? "audited answers differ"}, more often than calibrated.${!drift.accepting ? " Every frame is escalated."
      : drift.threshold === null ? "" : ` Threshold raised to ${drift.threshold.toPrecision(4)}.`}`
    : "No alarm.";
  const seen = drift.audited
    ? `${drift.alarms ? "All in all " : ""}${drift.disagreed} of ${drift.audited} audited answers differed (${percent(drift.disagreed / drift.audited)}); `
    : "No frame audited yet; ";
  at("drift").replaceChildren(
    element("p", { className: drift.alarms ? "bad" : "" }, verdict), meter,
    element("p", { className: "soft small" }, `${seen}calibrated: at most ${percent(drift.promised)}.`));
}

function points(value) { return `${value.toFixed(value < 10 ? 2 : 1)}\u00a0points`; }

function showPromise(promise) {
  at("promised").hidden = promise === null || promise.all === null;
  if (at("promised").hidden) return;
  const expected = kept => kept.expected_low_points === null || kept.expected_low_points === undefined ? ""
    : `between ${kept.expected_low_points.toFixed(2)} and ${points(kept.expected_high_points)} expected`;
  const bound = kept => [kept.effective_drop_points === null || !kept.certified_share ? ""
    : `At most ${points(kept.effective_drop_points)}`, expected(kept)].filter(part => part).join(", ") || "No bound on the drop";
  const shares = kept => `${percent(kept.certified_share)} of the answers certified, ${percent(kept.fallback_share)} the saver's for want of the large model`;
  const certified = promise.certified_points === null ? "No certificate."
    : `Certified: at most ${points(promise.certified_points)} against the large model alone.`;
  const lines = [element("p", {}, `${bound(promise.all)} since the start.`),
    element("p", { className: "soft small" }, `${shares(promise.all)}.`)];
  if (promise.recent !== null && promise.recent.answers < promise.all.answers)
    lines.push(element("p", { className: promise.recent.fallback_share > 0 ? "bad small" : "soft small" },
      `Last five minutes: ${bound(promise.recent).toLowerCase()}; ${shares(promise.recent)}.`));
  lines.push(element("p", { className: "soft small" }, certified));
  at("promise").replaceChildren(...lines);
}

function showHosts(told) {
  at("remote").hidden = told === null;
  if (told === null) return;
  const words = { closed: "asked", open: "left alone", half_open: "being tried" };
  at("hosts").replaceChildren(...told.hosts.map(one => element("tr", {},
    element("td", { className: "name" }, one.name + (one.in_use ? " · in use" : "")),
    element("td", { className: one.state === "closed" ? "word" : "word bad" }, words[one.state]),
    ...[String(one.answered), one.answered ? `${one.latency_ms.toFixed(1)} ms` : "–", String(one.reconnects)]
      .map(text => element("td", {}, text)))));
  const { requests, answered, retries, sent_bytes, received_bytes, failures } = told.traffic;
  const failed = Object.entries(failures).map(([kind, count]) => `${count} ${kind}`).join(", ");
  at("traffic").textContent = `${answered} of ${requests} requests answered, ${retries} retries, `
    + `${(sent_bytes / 1e6).toFixed(1)}\u00a0MB up, ${(received_bytes / 1e6).toFixed(1)}\u00a0MB down`
    + (failed ? `; failed: ${failed}.` : ".");
}

function showLatency(latency) {
  const kinds = ["saver", "large", "fused", "fallback"].filter(kind => kind in latency);
  const ms = value => value >= 100 ? `${value.toFixed(0)} ms` : `${value.toFixed(1)} ms`;
  at("latency").replaceChildren(...kinds.map(kind => {
    const { p50, p95, p99, frames } = latency[kind];
    return element("tr", {}, element("td", { className: "word" }, kind),
      ...[ms(p50), ms(p95), ms(p99), String(frames)].map(text => element("td", {}, text)));
  }));
}

function showThumbnails(thumbnails) {
  const there = new Map([...at("thumbnails").children].map(one => [one.dataset.number, one]));
  at("thumbnails").replaceChildren(...thumbnails.map(one => {
    const old = there.get(String(one.number));
    if (old) { old.querySelector(".age").textContent = `${span(one.age_s)} ago`; return old; }
    const item = element("li", {},
      element("img", { src: `/escalated/${one.number}.jpg`, alt: "" }),
      element("b", {}, one.label), ` ${percent(one.confidence)} ${one.answered_by} `,
      element("span", { className: "soft" }, `${one.source_id}, `, element("span", { className: "age" }, `${span(one.age_s)} ago`)));
    item.dataset.number = one.number;
    return item;
  }));
  if (!thumbnails.length)
    at("thumbnails").replaceChildren(element("li", { className: "soft" }, "None yet."));
}

function showDecision(decision) {
  at("label").textContent = decision.label;
  at("confidence").textContent = percent(decision.confidence);
  at("by").textContent = decision.source === "saver" ? "accepted" : decision.source;
  at("by").className = `chip ${decision.source}`;
  at("frame").textContent = `frame ${decision.frame_id.sequence} · ${decision.stage.model}`
    + (decision.certified ? " · certified" : "");
  at("degraded").hidden = decision.degraded === null;
  at("degraded").textContent = decision.degraded === null ? "" : `Degraded: ${decision.degraded}`;
  at("answer").hidden = at("picture").hidden = false;
  at("nothing").hidden = true;
}

async function followPictures() {
  for (;;) {
    const begun = performance.now(), source = chosen;
    try {
      if (source !== null && !document.hidden) {
        const answer = await ask(`/frame.jpg?source=${encodeURIComponent(source)}&after=${shownNumber}`);
        if (answer.status === 200 && source === chosen) {
          const decision = JSON.parse(decodeURIComponent(answer.headers.get("x-decision")));
          const url = URL.createObjectURL(await answer.blob());
          at("picture").src = url;
          await at("picture").decode().catch(() => {});
          if (pictureUrl) URL.revokeObjectURL(pictureUrl);
          pictureUrl = url;
          if (source === chosen) {
            shownNumber = Number(answer.headers.get("x-number"));
            showDecision(decision);
          }
        }
      }
    } catch { await wait(STATE_MS); }
    await wait(Math.max(10, PICTURE_MS - (performance.now() - begun)));
  }
}

async function followState() {
  for (;;) {
    try {
      if (!document.hidden) showState(await (await ask("/state.json")).json());
    } catch (error) {
      at("state").textContent = "no answer from the device";
      at("state").className = "pill bad";
    }
    await wait(STATE_MS);
  }
}

followState();
followPictures();
