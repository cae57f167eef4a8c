// Draws the charts of the analytics page. Without it the tables below say the same.

import { ask, bytes, bytesStep, colours, draw, label, seconds } from "./report_charts.js";

const charts = document.getElementById("charts");

async function show() {
  const report = await ask(charts.dataset.source);
  if (!report) return;
  const colour = colours();
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
  const line = (...given) => ({ ...set(...given), borderWidth: 1.5, pointRadius: report.series.length > 40 ? 0 : 2, pointHitRadius: 8, spanGaps: false, tension: 0.2 });
  draw("chart-requests", "bar", labels, [
    set("answered", "answered", "--chart-ok"),
    set("refused", "refused", "--chart-refused"),
    set("errors", "failed", "--chart-failed"),
  ], { stacked: true });
  draw("chart-times", "line", labels, [
    line("first_byte_p50_s", "median", "--chart-ok"),
    line("first_byte_p95_s", "95 %", "--chart-refused"),
  ], { shown: seconds });
  draw("chart-bytes", "bar", labels, [set("bytes_sent", "sent", "--chart-ok")], { shown: bytes, step: bytesStep });
}

if (charts && window.Chart) await show();
else document.getElementById("by-time")?.setAttribute("open", "");
