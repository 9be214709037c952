// A comparison's charts: a line a group of seeds, the range of its seeds as a band. Their data
// comes with the page.

import { AXES, Chart, smoothed } from "./chart.js";
import "./live.js";
import { draw as drawParameters } from "./parameters.js";

const left = new Chart(document.getElementById("by-samples"), "compare");
const right = new Chart(document.getElementById("by-seconds"), "compare");
const logX = document.getElementById("log-x");
const smooth = document.getElementById("smooth");
let drawn;

function draw() {
  const data = document.querySelector("#curves script").textContent;
  const key = `${data} ${logX.checked} ${smooth.value}`;
  if (key === drawn) return;
  drawn = key;
  const { groups, metric, x, target, log, parameters } = JSON.parse(data);
  drawParameters(document.getElementById("by-parameters"), { ...parameters, metric });
  for (const [chart, axis] of [[left, "samples"], [right, x]]) {
    const lines = groups.map(({ label, axes }) => ({ label, ...axes[axis] }));
    chart.show({ lines: smoothed(lines, Number(smooth.value)), logX: logX.checked, x: AXES[axis], y: metric, log, target });
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
logX.addEventListener("change", draw);
smooth.addEventListener("input", draw);
draw();
