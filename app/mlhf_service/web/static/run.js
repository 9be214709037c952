// A run's page: its curve, fetched again while it runs.

import { AXES, Chart, smoothed } from "./chart.js";
import "./live.js";

const LOSSES = ["train_loss", "test_loss", "running_loss"];
const MOST_POINTS = 1500;
const place = document.getElementById("chart");
const metric = document.getElementById("metric");
const axis = document.getElementById("axis");
const logY = document.getElementById("log-y");
const logX = document.getElementById("log-x");
const smooth = document.getElementById("smooth");
const note = document.getElementById("chart-note");
const chart = new Chart(place, undefined, () => draw());
const labels = JSON.parse(metric.dataset.labels);
const words = (name) => labels[name] ?? name.replaceAll("_", " ");
// Where the run diverged: its curves end there, whatever they last measured.
const UNITS = { wall_seconds: "s of training", cpu_seconds: "s of CPU time" };
const PLACES = { samples: "samples", steps: "step", epochs: "epoch", wall_seconds: "wall_seconds", cpu_seconds: "cpu_seconds" };
const diverged = () => JSON.parse(document.getElementById("state").dataset.diverged);
let shown = "";

// Both losses first, then each metric by itself; new ones appear as they are measured.
function offer(metrics) {
  const together = [LOSSES.slice(0, 2), ["train_accuracy", "test_accuracy"]].filter((pair) => pair.every((name) => metrics.includes(name)));
  const meta = (name) => name.startsWith("meta_loss"); // what meta-training is about comes first
  const single = [...metrics.filter(meta), ...metrics.filter((name) => !meta(name))];
  const wanted = [...together, ...single.map((name) => [name])];
  for (const names of wanted) {
    const value = names.join(",");
    if ([...metric.options].some((option) => option.value === value)) continue;
    const label = names.length > 1 ? `${words(names[0])} and ${words(names[1])}` : words(names[0]);
    metric.add(new Option(label, value));
  }
}

const defaultLog = () => !metric.value.includes("accuracy");

function line(series) {
  const points = series.points.map(([x, value]) => [x, typeof value === "number" ? value : null]);
  const crosses = [];
  let before = null;
  let wild = false;
  for (const [x, value] of series.points) {
    if (typeof value === "number") before = value;
    else if (!wild) crosses.push([x, before ?? 0]);
    wild = typeof value !== "number";
  }
  const end = diverged()?.[PLACES[axis.value]];
  if (end != null && before != null && !crosses.length) crosses.push([end, before]);
  return { label: words(series.metric), points, crosses };
}

function describe(curves) {
  const parts = [];
  const end = diverged();
  if (end) parts.push(`The run diverged at step ${end.step.toLocaleString("en")} (×).`);
  for (const { metric: name, points, downsampled, total_points: total, unplaced } of curves) {
    if (unplaced) parts.push(`${unplaced.toLocaleString("en")} points of ${words(name)} have no CPU time: it was not counted when they were measured.`);
    const wild = points.filter(([, value]) => typeof value !== "number");
    if (wild.length) parts.push(`${words(name)} is ${wild[0][1]} from ${wild[0][0].toLocaleString("en")} ${UNITS[axis.value] ?? axis.value} on (×).`);
    if (downsampled) parts.push(`${points.length.toLocaleString("en")} of ${total.toLocaleString("en")} points of ${words(name)} are drawn; lowest and highest are among them.`);
  }
  note.textContent = parts.join(" ");
}

async function draw() {
  const names = metric.value.split(",").filter(Boolean);
  if (!names.length) return chart.show({ lines: [] });
  const query = new URLSearchParams([["x", axis.value], ["max_points", MOST_POINTS], ...names.map((name) => ["metric", name])]);
  if (chart.window) { // and a little beyond it, so that lines go on to its edges
    const { min, max } = chart.window;
    query.set("min_x", min - (max - min) / 20);
    query.set("max_x", max + (max - min) / 20);
  }
  const response = await fetch(`/v1/runs/${place.dataset.run}/curves?${query}`).catch(() => undefined);
  if (!response?.ok) return;
  const text = await response.text();
  const key = `${query} ${logY.checked} ${logX.checked} ${smooth.value} ${JSON.stringify(diverged())} ${text}`;
  if (key === shown) return;
  shown = key;
  const { series } = JSON.parse(text);
  const target = names.includes(place.dataset.targetMetric) ? Number(place.dataset.target) : undefined;
  chart.show({ lines: smoothed(series.map(line), Number(smooth.value)), logX: logX.checked, x: AXES[axis.value], y: names.length > 1 ? words(names[0]).split(" ").at(-1) : words(names[0]), log: logY.checked, target });
  describe(series);
  if (chart.above.length) note.textContent += ` ▲: ${chart.above.join(", ")} leaves the picture above.`;
}

async function update() {
  const response = await fetch(`/v1/runs/${place.dataset.run}`).catch(() => undefined);
  const first = !metric.value;
  if (response?.ok) offer((await response.json()).metrics);
  if (first) logY.checked = defaultLog();
  await draw();
}

// The address holds what is drawn, so that a link shows the same.
function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [select, name] of [[metric, "metric"], [axis, "x"]]) {
    if ([...select.options].some(({ value }) => value === asked.get(name))) select.value = asked.get(name);
  }
}
function remember() {
  history.replaceState(null, "", `#${new URLSearchParams({ metric: metric.value, x: axis.value })}`);
}

offer(JSON.parse(metric.dataset.metrics));
recall();
logY.checked = defaultLog();
metric.addEventListener("change", () => { logY.checked = defaultLog(); remember(); draw(); });
axis.addEventListener("change", () => { chart.window = null; remember(); draw(); });
for (const one of [logY, logX, smooth]) one.addEventListener(one === smooth ? "input" : "change", draw);
document.addEventListener("live", update);
draw();
