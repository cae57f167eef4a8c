// Draws the charts of the analytics page. Without it the tables below say the same.

const charts = document.getElementById("charts");
const TIMEOUT_MS = 20_000;
const DAY_S = 86_400;

function colours() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}

function label(start, report) {
  const options = { timeZone: report.zone, hourCycle: "h23" };
  const clock = { hour: "2-digit", minute: "2-digit" };
  const day = { day: "numeric", month: "short" };
  const long = report.step_s >= 3600;
  return new Date(start).toLocaleString([], {
    ...options,
    ...(report.step_s >= DAY_S ? day : long ? { ...day, ...clock } : clock),
  });
}

function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${value >= 100 || at === 0 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

function draw(id, type, labels, datasets, { stacked = false, shown = (value) => value.toLocaleString() } = {}) {
  const colour = colours();
  return new window.Chart(document.getElementById(id), {
    type,
    data: { labels, datasets },
    options: {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: {
        legend: { display: false },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${shown(item.parsed.y)}` } },
      },
      scales: {
        x: { stacked, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 24 } },
        y: { stacked, beginAtZero: true, grid: { color: colour("--line") }, ticks: { maxTicksLimit: 6, callback: shown } },
      },
    },
  });
}

async function show() {
  const answer = await fetch(charts.dataset.source, {
    headers: { "X-Requested-With": "fetch" },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!answer.ok) return;
  const report = await answer.json();
  const colour = colours();
  window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  window.Chart.defaults.color = colour("--quiet");
  charts.hidden = false;
  const labels = report.series.map((step) => label(step.start, report));
  const set = (name, text, shade) => ({
    label: text,
    data: report.series.map((step) => step[name]),
    backgroundColor: colour(shade),
    borderColor: colour(shade),
    borderRadius: 2,
    borderWidth: 0,
  });
  const line = (...given) => ({ ...set(...given), borderWidth: 2, pointRadius: 2, spanGaps: false, tension: 0.2 });
  draw("chart-requests", "bar", labels, [
    set("answered", "answered", "--chart-ok"),
    set("refused", "refused", "--chart-refused"),
    set("errors", "failed", "--chart-failed"),
  ], { stacked: true });
  draw("chart-times", "line", labels, [
    line("first_byte_p50_s", "median", "--chart-ok"),
    line("first_byte_p95_s", "95 %", "--chart-refused"),
  ], { shown: seconds });
  draw("chart-bytes", "bar", labels, [set("bytes_sent", "sent", "--chart-ok")], { shown: bytes });
}

if (charts && window.Chart) await show();
else document.getElementById("by-time")?.setAttribute("open", "");
