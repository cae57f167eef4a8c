// Keeps the overview fresh: every second over a websocket; every 30 s by asking, where there is no websocket.

import { lineChart } from "./charts.js";
import { bytes as size, bytesStep } from "./report_charts.js";

const ASK_MS = 30_000;
const SILENT_MS = 8_000; // no message for so long: as good as no websocket
const RETRY_MS = [1_000, 2_000, 5_000, 15_000, 30_000];
const ANSWER_MS = 10_000;
const LOGGED_OUT = 4401;
const HIDDEN_MS = 60_000; // somebody who has not looked for so long needs no figures

const fresh = document.getElementById("fresh");
const freshText = document.getElementById("fresh-text");
const bytes = (value) => `${size(value)}/s`;
const seconds = (value) => (value >= 1 ? `${value.toFixed(1)} s` : `${Math.round(value * 1000)} ms`);
const count = (value) => (value >= 10 || Number.isInteger(value) ? `${Math.round(value)}` : value.toFixed(1));

const charts = window.Chart ? {
  requests: lineChart("chart-requests", [["answered", "--chart-ok"], ["refused", "--chart-refused"], ["failed", "--chart-failed"]], { text: count, stacked: true, least: 1 }),
  times: lineChart("chart-times", [["half within", "--chart-ok"], ["95 % within", "--chart-refused"]], { text: seconds, least: 0.01 }),
  bytes: lineChart("chart-bytes", [["sent", "--chart-ok"]], { text: bytes, filled: true, least: 1024, step: bytesStep }),
  people: lineChart("chart-people", [["users", "--chart-ok"], ["streams", "--chart-refused"]], { text: count, least: 2 }),
} : {};

let history = null;

function showHistory(message) {
  history = message;
  draw(null);
}

// The last point of each chart is the running moment, after the steps that are over.
function draw(now) {
  if (!history || !window.Chart) return;
  const starts = [...history.starts];
  const series = {
    requests: [
      history.requests_per_s.map((all, at) => all - history.refused_per_s[at] - history.errors_per_s[at]),
      [...history.refused_per_s],
      [...history.errors_per_s],
    ],
    times: [[...history.first_byte_p50_s], [...history.first_byte_p95_s]],
    bytes: [[...history.bytes_per_s]],
    people: [[...history.users], [...history.streams]],
  };
  if (now) {
    starts.push(now.at);
    const values = {
      requests: [now.requests_per_s - now.refused_per_s - now.errors_per_s, now.refused_per_s, now.errors_per_s],
      times: [now.first_byte_p50_s, now.first_byte_p95_s],
      bytes: [now.bytes_per_s],
      people: [now.users, now.streams],
    };
    for (const name of Object.keys(series)) series[name].forEach((list, at) => list.push(values[name][at]));
  }
  for (const name of Object.keys(series)) charts[name].show(starts, series[name]);
}

// The step that is over now, as the server counted it, once more each second: counts may still have come in late.
function keep(step) {
  if (!history) return;
  const ahead = step.starts[0] - history.starts[history.starts.length - 1];
  if (ahead > step.step_s) askForHistory().catch(() => {}); // steps are missing: this page has slept
  if (ahead < 0 || ahead > step.step_s) return;
  for (const [name, values] of Object.entries(step)) {
    const list = history[name];
    if (!Array.isArray(list)) continue;
    if (ahead) list.shift();
    else list.pop();
    list.push(values[0]);
  }
}

// A piece is exchanged only when it looks different, and never under somebody's focus.
const shown = new Map();
function showPiece(id, html) {
  const place = document.getElementById(id);
  if (!place || shown.get(id) === html || place.contains(document.activeElement)) return;
  shown.set(id, html);
  const parsed = new DOMParser().parseFromString(html, "text/html");
  place.replaceChildren(...parsed.body.childNodes);
}

function say(text, state) {
  freshText.textContent = text;
  fresh.dataset.state = state;
}

function clock() {
  return new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

// The websocket
let heardAt = 0;
let tries = 0;
let retryTimer = 0;
let socket = null;

// Only the newest moment is shown. A machine that is slow at it gets fewer of them, and stays usable.
let newest = null;
let waiting = false;

function showSoon(message) {
  newest = message;
  if (!waiting && !document.hidden) showNewest();
}

function showNewest() {
  const started = performance.now();
  const message = newest;
  newest = null;
  for (const [name, html] of Object.entries(message.pieces)) showPiece(`live-${name}`, html);
  keep(message.step);
  draw(message.figures);
  say("live", "live");
  waiting = true;
  window.setTimeout(() => {
    waiting = false;
    if (newest && !document.hidden) showNewest();
  }, Math.min(10_000, 4 * (performance.now() - started)));
}

function connect() {
  letGo(); // a page that comes back may be told so twice
  const address = new URL(fresh.dataset.socket, window.location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const opened = new WebSocket(address);
  socket = opened;
  opened.addEventListener("message", (event) => {
    if (opened !== socket) return;
    heardAt = Date.now();
    tries = 0;
    const message = JSON.parse(event.data);
    if (message.type === "history") showHistory(message);
    else showSoon(message);
  });
  opened.addEventListener("close", (event) => {
    if (opened !== socket) return;
    socket = null;
    if (event.code === LOGGED_OUT) window.location.reload(); // to the login page, and back here after it
    else connectLater();
  });
}

function connectLater() {
  if (isLive()) say("connection lost, trying again", "away");
  retryTimer = window.setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
}

function isLive() {
  return fresh.dataset.state === "live";
}

function letGo() {
  window.clearTimeout(retryTimer);
  const left = socket;
  socket = null;
  left?.close();
}

// A connection can be dead without a word: the network went away, or the computer slept.
function notice() {
  if (document.hidden || !isLive() || Date.now() - heardAt < SILENT_MS) return;
  letGo();
  connectLater();
}

// Nobody looks at a hidden page: after a while it lets go, and the server computes nothing for it.
let hiddenTimer = 0;
let isResting = false;

function rest() {
  isResting = true;
  letGo();
  say("paused while nobody looked", "slow");
}

function lookedAt() {
  window.clearTimeout(hiddenTimer);
  if (document.hidden) {
    hiddenTimer = window.setTimeout(rest, HIDDEN_MS);
  } else if (isResting) {
    isResting = false;
    connect();
  } else if (newest && !waiting) {
    showNewest();
  }
}

// Without it
async function ask(address) {
  const answer = await fetch(address, { headers: { "X-Requested-With": "fetch" }, signal: AbortSignal.timeout(ANSWER_MS) });
  if (answer.status === 401) window.location.reload();
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer;
}

let asked = null;
function askForHistory() {
  asked ??= ask(fresh.dataset.history)
    .then(async (answer) => showHistory(await answer.json()))
    .finally(() => { asked = null; });
  return asked;
}

async function askForAll() {
  if (document.hidden || Date.now() - heardAt < SILENT_MS) return;
  try {
    const page = new DOMParser().parseFromString(await (await ask(fresh.dataset.live)).text(), "text/html");
    for (const piece of page.querySelectorAll("[data-into]")) showPiece(piece.dataset.into, piece.innerHTML);
    await askForHistory();
    if (Date.now() - heardAt >= SILENT_MS) say(`as of ${clock()}, every 30 s`, "slow");
  } catch {
    say("the server does not answer, trying again", "away");
  }
}

connect();
lookedAt();
window.setTimeout(askForAll, 2_000);
window.setInterval(askForAll, ASK_MS);
window.setInterval(notice, 2_000);
document.addEventListener("visibilitychange", lookedAt);
document.addEventListener("visibilitychange", askForAll);
window.addEventListener("pagehide", letGo);
window.addEventListener("pageshow", (event) => event.persisted && connect());
