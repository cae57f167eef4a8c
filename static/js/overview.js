// Keeps the overview fresh: every 30 s the server's own pieces of the page, and the figures of the chart.

const PERIOD_MS = 30_000;
const TIMEOUT_MS = 10_000;
const canvas = document.getElementById("requests");
const fresh = document.getElementById("fresh");
const freshText = document.getElementById("fresh-text");
const note = document.getElementById("chart-note");
let chart = null;

async function ask(address) {
  const answer = await fetch(address, {
    headers: { "X-Requested-With": "fetch" },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (answer.status === 401) window.location.reload(); // the session is over: to the login page
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer;
}

async function refreshPieces() {
  const page = new DOMParser().parseFromString(await (await ask(fresh.dataset.live)).text(), "text/html");
  for (const piece of page.querySelectorAll("[data-into]")) {
    const place = document.getElementById(piece.dataset.into);
    if (place && !place.contains(document.activeElement)) place.replaceChildren(...piece.childNodes);
  }
}

async function refreshChart() {
  const minutes = await (await ask(canvas.dataset.source)).json();
  const total = [...minutes.answered, ...minutes.refused, ...minutes.failed].reduce((sum, count) => sum + count, 0);
  note.textContent = total ? "" : "No requests in the last hour.";
  canvas.setAttribute("aria-label", `Requests per minute in the last hour: ${total} in all`);
  const labels = minutes.starts.map((start) =>
    new Date(start).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
  );
  chart ??= makeChart();
  chart.data.labels = labels;
  ["answered", "refused", "failed"].forEach((name, index) => {
    chart.data.datasets[index].data = minutes[name];
  });
  chart.update("none");
}

function makeChart() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const bars = (label, name) => ({ label, data: [], backgroundColor: colour(name), borderRadius: 2, stack: "all" });
  window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  window.Chart.defaults.color = colour("--quiet");
  return new window.Chart(canvas, {
    type: "bar",
    data: {
      labels: [],
      datasets: [bars("answered", "--chart-ok"), bars("refused", "--chart-refused"), bars("failed", "--chart-failed")],
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: { legend: { display: false } },
      scales: {
        x: { stacked: true, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 24 } },
        y: { stacked: true, beginAtZero: true, suggestedMax: 5, grid: { color: colour("--line") }, ticks: { precision: 0, maxTicksLimit: 6 } },
      },
    },
  });
}

async function refresh(...tasks) {
  const results = await Promise.allSettled(tasks.map((task) => task()));
  const failed = results.some((result) => result.status === "rejected");
  const now = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  freshText.textContent = failed ? "the server does not answer, trying again" : `as of ${now}`;
}

const draw = window.Chart ? [refreshChart] : [];
await refresh(...draw);
window.setInterval(() => {
  if (!document.hidden) refresh(refreshPieces, ...draw);
}, PERIOD_MS);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh(refreshPieces, ...draw);
});
