// A comparison's charts: a line a group of seeds, the range of its seeds as a band.

import { AXES, Chart } from "./chart.js";
import { active, say } from "./live.js";

const place = document.getElementById("charts");
const charts = [["samples", new Chart(document.getElementById("by-samples"))], ["wall_seconds", new Chart(document.getElementById("by-seconds"))]];
let drawn = false;

function line({ label, n, curve }, axis) {
  const points = curve[axis].map((x, index) => [x, curve.mean[index]]);
  const crosses = [];
  for (let index = 1; index < points.length; index++)
    if (points[index][1] === null && points[index - 1][1] !== null) crosses.push(points[index - 1]);
  const band = n > 1 ? curve[axis].map((x, index) => [x, curve.min[index], curve.max[index]]) : undefined;
  return { label: n > 1 ? `${label} (${n} seeds)` : label, points, band, crosses };
}

async function draw() {
  const response = await fetch(place.dataset.url).catch(() => undefined);
  if (!response?.ok) return say("The curves cannot be read. Trying again …", true);
  const { groups, metric, target } = await response.json();
  for (const [axis, chart] of charts) {
    const lines = groups.map((group) => line(group, axis));
    chart.show({ lines, x: AXES[axis], y: metric.replaceAll("_", " "), log: !metric.includes("accuracy"), target });
  }
  const crossed = groups.some((group) => line(group, "samples").crosses.length);
  document.getElementById("chart-note").textContent =
    (groups.some((group) => group.n > 1) ? "Lines are means over seeds, bands their range. " : "") + (crossed ? "× marks where a curve leaves the finite numbers." : "");
  drawn = true;
}

document.addEventListener("live", () => { if (!drawn || active()) draw(); });
draw();
