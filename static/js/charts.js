// Line charts over time in the colours of the theme, on Chart.js.

const style = () => getComputedStyle(document.documentElement);
const colour = (name) => style().getPropertyValue(name).trim();

export function time(second, withSeconds = false) {
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(withSeconds ? { second: "2-digit" } : {}) };
  return new Date(second * 1000).toLocaleTimeString([], parts);
}

// lines: [[label, name of the colour], ...]. Options: text (a value in words), stacked, filled, least (of the scale's top),
// step (the distance of the scale's marks, for its highest value).
export function lineChart(id, lines, { text, stacked = false, filled = stacked, least = 1, step }) {
  const canvas = document.getElementById(id);
  window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  window.Chart.defaults.color = colour("--quiet");
  let starts = [];
  const chart = new window.Chart(canvas, {
    type: "line",
    data: {
      labels: [],
      datasets: lines.map(([label, name], at) => ({
        label, data: [], borderColor: colour(name), backgroundColor: `${colour(name)}${stacked ? "59" : "26"}`, fill: filled && (stacked && at ? "-1" : "origin"),
        borderWidth: 1.5, pointRadius: 0, pointHitRadius: 8, tension: 0.25, spanGaps: false,
      })),
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: {
        legend: { display: false },
        tooltip: {
          callbacks: {
            title: (items) => (items.length ? time(starts[items[0].dataIndex], true) : ""),
            label: (item) => `${item.dataset.label}: ${item.raw === null ? "-" : text(item.raw)}`,
          },
        },
      },
      scales: {
        x: {
          grid: { display: false },
          ticks: { maxRotation: 0, autoSkip: true, autoSkipPadding: 16, maxTicksLimit: 7, callback: (_, index) => time(starts[index]) },
        },
        y: {
          stacked, beginAtZero: true, suggestedMax: least, grid: { color: colour("--line") }, border: { display: false },
          ticks: { maxTicksLimit: step ? 7 : 5, callback: (value) => text(value) },
        },
      },
    },
  });
  return {
    show(newStarts, values) {
      starts = newStarts;
      chart.data.labels = newStarts;
      values.forEach((list, at) => { chart.data.datasets[at].data = list; });
      if (step) chart.options.scales.y.ticks.stepSize = step(Math.max(least, ...values.flat()));
      chart.update("none");
    },
  };
}
