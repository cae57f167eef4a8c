// Watches one job over its websocket: the progress bar moves, and the page is read anew when the job ends, and once more
// when its fetch has. Whoever has begun to play the file is not interrupted: a link does it then.

const box = document.getElementById("job");
const bar = document.getElementById("job-bar");
const words = document.getElementById("job-words");
const STAGES = {
  queued: "waiting for its turn", connecting: "connecting", downloading: "downloading", muxing: "joining picture and sound",
  checking: "checking", done: "done",
};
const NORMAL = 1000;
const RETRY_MS = 3_000;
let socket = null;

function size(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

function show(job) {
  if (job.progress === null || job.progress === undefined) bar.removeAttribute("value");
  else bar.value = job.progress;
  const parts = [STAGES[job.stage] ?? job.stage ?? job.state];
  if (job.bytes_done) parts.push(job.bytes_total ? `${size(job.bytes_done)} of ${size(job.bytes_total)}` : size(job.bytes_done));
  if (job.speed_bytes_per_s) parts.push(`${size(job.speed_bytes_per_s)}/s`);
  words.textContent = parts.join(", ");
}

function isPlayed() {
  const player = document.querySelector("video, audio");
  return player !== null && (!player.paused || player.played.length > 0);
}

function tellTheEnd() {
  if (!isPlayed()) {
    window.location.reload();
    return;
  }
  const again = document.createElement("a");
  again.href = window.location.href;
  again.textContent = "Show what came of it";
  words.replaceChildren("The fetch has ended. ", again);
}

function watch() {
  const address = new URL(`/ws/jobs/${box.dataset.job}`, window.location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address);
  socket.addEventListener("message", (event) => show(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => {
    if (event.code === NORMAL) tellTheEnd();
    else window.setTimeout(() => (isPlayed() ? watch() : window.location.reload()), RETRY_MS);
  });
}

if (box) {
  watch();
  window.addEventListener("pagehide", () => socket.close());
} else if (document.getElementById("ending")) {
  window.setTimeout(() => window.location.reload(), RETRY_MS);  // there is nothing to play meanwhile
}
