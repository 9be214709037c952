// A comparison's charts: a line a group of seeds, the range of its seeds as a band. Their data
// comes with the page.

import { AXES, Chart } from "./chart.js";
import "./live.js";

const left = new Chart(document.getElementById("by-samples"));
const right = new Chart(document.getElementById("by-seconds"));
let drawn;

function draw() {
  const data = document.getElementById("curves").dataset.charts;
  if (data === drawn) return;
  drawn = data;
  const { groups, metric, x, target, log } = JSON.parse(data);
  for (const [chart, axis] of [[left, "samples"], [right, x]]) {
    const lines = groups.map(({ label, axes }) => ({ label, ...axes[axis] }));
    chart.show({ lines, x: AXES[axis], y: metric, log, target });
  }
  const all = groups.map((group) => group.axes.samples);
  const notes = [
    all.some((one) => one.band?.length) && "Lines are means over seeds, bands their range.",
    all.some((one) => one.rests.length) && "Thin: single runs beyond what all of their group have.",
    all.some((one) => one.crosses.length) && "×: the run diverged; its loss left the finite numbers.",
    left.above.length && `▲: ${left.above.join(", ")} leaves the picture above.`,
  ];
  document.getElementById("chart-note").textContent = notes.filter(Boolean).join(" ");
}

document.addEventListener("live", draw);
draw();
