// A comparison's charts: a line a group of seeds, the range of its seeds as a band. Their data
// comes with the page.

import { AXES, Chart } from "./chart.js";
import "./live.js";

const charts = { samples: "by-samples", wall_seconds: "by-seconds" };
for (const axis in charts) charts[axis] = new Chart(document.getElementById(charts[axis]));
let drawn;

function draw() {
  const data = document.getElementById("curves").dataset.charts;
  if (data === drawn) return;
  drawn = data;
  const { groups, metric, target, log } = JSON.parse(data);
  for (const axis in charts) {
    const lines = groups.map(({ label, axes }) => ({ label, ...axes[axis] }));
    charts[axis].show({ lines, x: AXES[axis], y: metric.replaceAll("_", " "), log, target });
  }
  const all = groups.map((group) => group.axes.samples);
  const notes = [
    all.some((one) => one.band?.length) && "Lines are means over seeds, bands their range.",
    all.some((one) => one.rests.length) && "Thin: single runs beyond what all of their group have.",
    all.some((one) => one.crosses.length) && "×: the loss leaves the finite numbers.",
  ];
  document.getElementById("chart-note").textContent = notes.filter(Boolean).join(" ");
}

document.addEventListener("live", draw);
draw();
