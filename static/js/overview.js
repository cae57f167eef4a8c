// Keeps the overview fresh: every second over a websocket; every 30 s by asking, where there is no websocket.

import { lineChart } from "./charts.js";
import { bytes as size, bytesStep } from "./report_charts.js";

const ASK_MS = 30_000;
const SILENT_MS = 8_000; // no message for so long: as good as no websocket
const RETRY_MS = [1_000, 2_000, 5_000, 15_000, 30_000];
const ANSWER_MS = 10_000;
const LOGGED_OUT = 4401;
const KEPT_POINTS = 360;

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

// The last point of each chart is the running moment; it becomes history when its step is over.
function draw(now) {
  if (!history || !window.Chart) return;
  const starts = [...history.starts];
  const series = {
    requests: [
      history.requests_per_s.map((all, at) => Math.max(0, all - history.refused_per_s[at] - history.errors_per_s[at])),
      [...history.refused_per_s],
      [...history.errors_per_s],
    ],
    times: [[...history.first_byte_p50_s], [...history.first_byte_p95_s]],
    bytes: [[...history.bytes_per_s]],
    people: [[...history.users], [...history.streams]],
  };
  if (now) {
    starts.push(now.at);
    const refused = now.requests_per_s * now.refused_rate;
    const failed = now.requests_per_s * now.error_rate;
    const values = {
      requests: [now.requests_per_s - refused - failed, refused, failed],
      times: [now.first_byte_p50_s, now.first_byte_p95_s],
      bytes: [now.bytes_per_s],
      people: [now.users, now.streams],
    };
    for (const name of Object.keys(series)) series[name].forEach((list, at) => list.push(values[name][at]));
    keep(now, refused, failed);
  }
  for (const name of Object.keys(series)) charts[name].show(starts, series[name]);
}

function keep(now, refused, failed) {
  const last = history.starts[history.starts.length - 1] ?? 0;
  if (now.at - last < 2 * history.step_s) return;
  const lists = [history.starts, history.requests_per_s, history.refused_per_s, history.errors_per_s,
    history.first_byte_p50_s, history.first_byte_p95_s, history.bytes_per_s, history.users, history.streams];
  const values = [last ? last + history.step_s : Math.floor(now.at), now.requests_per_s, refused, failed, now.first_byte_p50_s, now.first_byte_p95_s,
    now.bytes_per_s, now.users, now.streams];
  lists.forEach((list, at) => {
    list.push(values[at]);
    if (list.length > KEPT_POINTS) list.shift();
  });
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
  draw(message.figures);
  say("live", "live");
  waiting = true;
  window.setTimeout(() => {
    waiting = false;
    if (newest && !document.hidden) showNewest();
  }, Math.min(10_000, 4 * (performance.now() - started)));
}

function connect() {
  const address = new URL(fresh.dataset.socket, window.location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address);
  socket.addEventListener("message", (event) => {
    heardAt = Date.now();
    tries = 0;
    const message = JSON.parse(event.data);
    if (message.type === "history") showHistory(message);
    else showSoon(message);
  });
  socket.addEventListener("close", (event) => {
    socket = null;
    if (event.code === LOGGED_OUT) window.location.reload(); // to the login page, and back here after it
    else window.setTimeout(connect, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  });
}

// Without it
async function ask(address) {
  const answer = await fetch(address, { headers: { "X-Requested-With": "fetch" }, signal: AbortSignal.timeout(ANSWER_MS) });
  if (answer.status === 401) window.location.reload();
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer;
}

async function askForAll() {
  if (document.hidden || Date.now() - heardAt < SILENT_MS) return;
  try {
    const page = new DOMParser().parseFromString(await (await ask(fresh.dataset.live)).text(), "text/html");
    for (const piece of page.querySelectorAll("[data-into]")) showPiece(piece.dataset.into, piece.innerHTML);
    if (window.Chart) showHistory(await (await ask(fresh.dataset.history)).json());
    say(`as of ${clock()}, every 30 s`, "slow");
  } catch {
    say("the server does not answer, trying again", "away");
  }
}

connect();
window.setTimeout(askForAll, 2_000);
window.setInterval(askForAll, ASK_MS);
document.addEventListener("visibilitychange", askForAll);
window.addEventListener("pagehide", () => socket?.close());
