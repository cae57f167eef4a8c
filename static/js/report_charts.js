// What the charts of reports share: asking for the figures, and drawing them.

const TIMEOUT_MS = 20_000;
const DAY_S = 86_400;
const ONE_DAY_MS = 90_000_000; // an hour more: 24 hours are widened to whole steps

// The JSON behind an address of ours; null when it cannot be had.
export async function ask(address) {
  const answer = await fetch(address, {
    headers: { "X-Requested-With": "fetch" },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  return answer.ok ? answer.json() : null;
}

// The colours of the theme, by their names in app.css.
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}

// A zone that is newer than the browser is drawn in UTC.
function zoneKnownHere(zone) {
  try {
    return new Intl.DateTimeFormat([], { timeZone: zone }).resolvedOptions().timeZone;
  } catch {
    return "UTC";
  }
}

// The start of a step as people of the report's time zone write it.
export function label(start, report) {
  const options = { timeZone: zoneKnownHere(report.zone), hourCycle: "h23" };
  const clock = { hour: "2-digit", minute: "2-digit" };
  const day = { day: "numeric", month: "short" };
  const long = Date.parse(report.end) - Date.parse(report.start) > ONE_DAY_MS;
  return new Date(start).toLocaleString([], {
    ...options,
    ...(report.step_s >= DAY_S ? day : long ? { ...day, ...clock } : clock),
  });
}

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${value >= 100 || at === 0 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

// The distance of a scale's marks for values up to `most`: round in the unit that `bytes` would write.
export function bytesStep(most) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(Math.max(most, 1)) / Math.log(1024)));
  return unit * [0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500].find((step) => most / unit / step <= 5);
}

export function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

export function draw(id, type, labels, datasets, { stacked = false, shown = (value) => value.toLocaleString(), step } = {}) {
  const colour = colours();
  const stepSize = step?.(Math.max(...datasets.flatMap((set) => set.data)));
  window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  window.Chart.defaults.color = colour("--quiet");
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
        y: { stacked, beginAtZero: true, grid: { color: colour("--line") }, ticks: { maxTicksLimit: 7, stepSize, callback: shown } },
      },
    },
  });
}
