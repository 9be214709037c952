// Hyperparameters against what came of them: a scatter plot and parallel coordinates, as SVG.

const MOST_AXES = 6;
const NS = "http://www.w3.org/2000/svg";
const WIDTH = 620, HEIGHT = 260, EDGE = 56;
const last = (name) => name.split(".").at(-1);

function short(value) {
  if (typeof value !== "number") return String(value);
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function node(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A place between 0 and 1 for each value: by logarithm where numbers span decades, by order for words.
function scale(values) {
  const known = values.filter((value) => value != null);
  if (!known.every((value) => typeof value === "number")) {
    const names = [...new Set(known.map(String))];
    return { at: (value) => (names.length < 2 ? 0.5 : names.indexOf(String(value)) / (names.length - 1)), ticks: names };
  }
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const log = low > 0 && high / low > 20;
  const f = log ? Math.log : (value) => value;
  const at = (value) => (high === low ? 0.5 : (f(value) - f(low)) / (f(high) - f(low)));
  return { at, ticks: [...new Set([low, high])] };
}

function picture(title) {
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title, class: "plot" });
  return svg;
}

const point = (run) => `${run.label}, seed ${run.seed}: ${run.value == null ? "not measured" : short(run.value)}`;

function scatter(runs, name, metric) {
  const svg = picture(`${metric} by ${name}`);
  const shown = runs.filter((run) => run.value != null && run.params[name] != null);
  const x = scale(shown.map((run) => run.params[name]));
  const y = scale(shown.map((run) => run.value));
  const left = (value) => EDGE + x.at(value) * (WIDTH - 2 * EDGE);
  const top = (value) => HEIGHT - EDGE - y.at(value) * (HEIGHT - 2 * EDGE);
  svg.append(node("path", { d: `M${EDGE} ${EDGE / 2}V${HEIGHT - EDGE + 10}H${WIDTH - EDGE / 2}`, class: "axis" }));
  for (const tick of x.ticks) svg.append(node("text", { x: left(tick), y: HEIGHT - 20, "text-anchor": "middle" }, short(tick)));
  for (const tick of y.ticks) svg.append(node("text", { x: EDGE - 6, y: top(tick) + 4, "text-anchor": "end" }, short(tick)));
  svg.append(node("text", { x: WIDTH / 2, y: HEIGHT - 4, "text-anchor": "middle" }, name));
  for (const run of shown) {
    const dot = node("circle", { cx: left(run.params[name]), cy: top(run.value), r: 5, class: `dot f${run.group % 7}` });
    dot.append(node("title", {}, point(run)));
    svg.append(dot);
  }
  return svg;
}

function parallel(runs, names, metric) {
  const svg = picture(`Parallel coordinates of ${names.join(", ")} and ${metric}`);
  const axes = [...names.map((name) => ({ name, of: (run) => run.params[name] })), { name: metric, of: (run) => run.value }]
    .map((axis, index, all) => ({ ...axis, ...scale(runs.map(axis.of)), x: EDGE + (index * (WIDTH - 2 * EDGE)) / (all.length - 1 || 1) }));
  const top = (axis, value) => HEIGHT - EDGE - axis.at(value) * (HEIGHT - 2 * EDGE);
  for (const axis of axes) {
    svg.append(node("path", { d: `M${axis.x} ${EDGE}V${HEIGHT - EDGE}`, class: "axis" }));
    svg.append(node("text", { x: axis.x, y: 18, "text-anchor": "middle" }, last(axis.name)));
    for (const tick of axis.ticks.slice(0, 8)) svg.append(node("text", { x: axis.x + 5, y: top(axis, tick) + 4 }, short(tick)));
  }
  for (const run of runs) {
    const places = axes.filter((axis) => axis.of(run) != null).map((axis) => `${axis.x} ${top(axis, axis.of(run))}`);
    if (places.length < 2) continue;
    const line = node("path", { d: `M${places.join("L")}`, class: `way l${run.group % 7}` });
    line.append(node("title", {}, point(run)));
    svg.append(line);
  }
  return svg;
}

// data: {runs: [{label, group, seed, params, value}], names, metric}
export function draw(place, { runs, names, metric }) {
  const section = place.closest("section");
  section.hidden = !names.length;
  if (!names.length) return;
  const select = section.querySelector("select");
  const chosen = select.value || names[0];
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  const show = () => place.replaceChildren(scatter(runs, select.value, metric), parallel(runs, names.slice(0, MOST_AXES), metric));
  select.onchange = show;
  show();
}
