// Draws what a key did lately, on its page.

import { ask, colours, draw, label } from "./report_charts.js";

const canvas = document.getElementById("chart-use");

async function show() {
  const usage = await ask(canvas.dataset.source);
  const note = document.getElementById("use-note");
  if (!usage) return;
  document.getElementById("use-zone").textContent = usage.zone;
  note.textContent = usage.totals.requests ? "" : "No requests with this key in the last 7 days. New ones are here within three minutes.";
  const total = usage.totals.requests.toLocaleString();
  canvas.setAttribute("aria-label", `Requests with this key in the last 7 days: ${total} in all`);
  if (!usage.totals.requests) return;
  const colour = colours();
  const set = (name, text, shade) => ({
    label: text,
    data: usage.series.map((step) => step[name]),
    backgroundColor: colour(shade),
    borderRadius: 2,
  });
  draw("chart-use", "bar", usage.series.map((step) => label(step.start, usage)), [
    set("answered", "answered", "--chart-ok"),
    set("refused", "refused", "--chart-refused"),
    set("errors", "failed", "--chart-failed"),
  ], { stacked: true });
}

if (canvas && window.Chart) await show();
