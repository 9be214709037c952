// Lines over an axis, by uPlot: logarithmic or not, with bands, a target, and crosses where a
// curve leaves the finite numbers.

/* global uPlot */

const COLOURS = 7;
const DASHES = [[[], "solid"], [[8, 4], "dashed"], [[2, 3], "dotted"]];
const HEIGHT = 340;
const FEW = 40; // points of a line, up to which each is marked
export const AXES = { samples: "samples", steps: "steps", epochs: "epochs", wall_seconds: "training time (s)", cpu_seconds: "CPU time of training (s)" };

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const short = (value) => (value == null ? "–" : String(Number(value.toPrecision(4))));
// A place on the horizontal axis: 1.4K samples, 0.003 s.
export const place = (value) => (value == null ? "" : Math.abs(value) < 1 ? short(value) : compact.format(value));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (index) => css(`--series-${index % COLOURS}`);
const all = (line) => [line.points, ...(line.rests ?? [])].flat();

// Ticks at 1, 2 and 5 of each decade; evenly where that gives too few.
function logTicks(u, axis, low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const digit of high / low > 300 ? [1] : [1, 2, 5]) ticks.push(Number(`${digit}e${power}`));
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  if (inside.length > 2) return inside;
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((digit) => digit * power >= rough) * power;
  const even = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) even.push(tick);
  return even;
}

// The index of the value nearest to the cursor: lines have points at different places.
function nearest(u, series, at) {
  const values = u.data[series];
  for (let distance = 0; distance < values.length; distance++)
    for (const index of [at - distance, at + distance]) if (values[index] != null) return index;
  return at;
}

// An average over what came before, with the given memory (0: none), corrected at the start. What
// was measured stays in sight as a thin line.
export function smoothed(lines, memory) {
  if (!(memory > 0)) return lines;
  return lines.map((line) => {
    let sum = 0, weight = 0;
    const points = line.points.map(([x, y]) => {
      if (y == null) return [x, y];
      sum = memory * sum + (1 - memory) * y;
      weight = memory * weight + (1 - memory);
      return [x, sum / weight];
    });
    return { ...line, points, rests: [line.points, ...(line.rests ?? [])] };
  });
}

// One table a line: its places, its values, and its band's edges; thin rests are tables too.
// A cross beyond a line's last point belongs to what is seen, so its place is in the table.
export function tables(lines) {
  return lines.flatMap(({ points, band, rests = [], crosses = [] }) => {
    const last = points.at(-1)?.[0] ?? -Infinity;
    const beyond = crosses.map(([x]) => x).filter((x) => x > last).sort((one, other) => one - other);
    const none = beyond.map(() => null);
    const columns = [[...points.map(([x]) => x), ...beyond], [...points.map(([, y]) => y), ...none]];
    if (band) columns.push([...band.map(([, low]) => low), ...none], [...band.map(([, , high]) => high), ...none]);
    return [columns, ...rests.map((rest) => [rest.map(([x]) => x), rest.map(([, y]) => y)])];
  });
}

function seriesOf(lines, x) {
  const series = [{ label: x, value: (u, value) => (value == null ? "–" : place(value)) }];
  const bands = [];
  const aside = { class: "aside", points: { show: false } };
  for (const [index, { label, band, rests = [] }] of lines.entries()) {
    const stroke = colour(index);
    const [dash, marker] = DASHES[Math.floor(index / COLOURS) % DASHES.length];
    const points = { show: (u, at) => u.data[at].filter((y) => y != null).length < FEW, size: 5, fill: stroke };
    series.push({ label, stroke, width: 2, dash, marker, points, value: (u, value) => short(value) });
    if (band) {
      bands.push({ series: [series.length + 1, series.length], fill: `${stroke}38` });
      for (const edge of ["low", "high"]) series.push({ ...aside, label: edge, stroke: "transparent", width: 0 });
    }
    for (const _ of rests) series.push({ ...aside, label: "alone", stroke, width: 1, dash });
  }
  return { series, bands };
}

export class Chart {
  // group: a name that charts share in which the same lines are shown and hidden together.
  // onZoom: is told the places between which one looks closer, null for all; it then shows what
  // there is between them.
  constructor(place, group, onZoom) {
    this.place = place;
    this.group = group;
    this.onZoom = onZoom;
    this.window = null;
    new ResizeObserver(() => this.resize()).observe(place);
    document.addEventListener("theme", () => this.build());
  }

  // lines: [{label, points: [[x, y or null]], band?: [[x, low, high]], rests?: [points],
  // crosses?: [[x, y]]}]. What was zoomed into stays in sight while points are added.
  show(content) {
    this.content = content;
    const { lines, x, y, log, logX } = content;
    const values = lines.flatMap(all).map(([, value]) => value).filter((value) => value != null);
    this.empty = !values.length;
    this.logarithmic = log && values.every((value) => value > 0);
    this.above = this.logarithmic ? lines.filter((line) => this.leaving(line)).map(({ label }) => label) : [];
    const shape = lines.map(({ label, band, rests = [] }) => [label, Boolean(band), rests.length]);
    const key = JSON.stringify([shape, x, y, this.logarithmic, Boolean(logX), this.empty]);
    if (key !== this.key || !this.plot) {
      this.key = key;
      this.build();
    } else {
      if (this.window) {
        this.plot.setData(this.joined(), false);
        this.plot.setScale("x", this.window);
        return;
      }
      const { min, max } = this.plot.scales.x;
      const places = this.plot.data[0];
      const zoomed = min > places[0] || max < places.at(-1);
      this.plot.setData(this.joined(), !zoomed);
      if (zoomed) this.plot.redraw();
    }
  }

  zoom(window) {
    this.window = window;
    this.onZoom?.(window);
  }

  // On a logarithmic axis there is no place at 0 or before: the first points are left out.
  joined() {
    const table = uPlot.join(tables(this.content.lines));
    if (!this.content.logX) return table;
    const from = table[0].findIndex((x) => x > 0);
    return table.map((column) => column.slice(Math.max(from, 0)));
  }

  smallest() {
    return Math.min(...this.content.lines.flatMap(all).map(([x]) => x).filter((x) => x > 0), Infinity);
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  build() {
    if (!this.content) return;
    this.plot?.destroy();
    this.plot = undefined;
    this.place.classList.toggle("nothing", this.empty);
    this.place.textContent = this.empty ? "Nothing measured yet." : "";
    if (this.empty) return;
    const { lines, x, y } = this.content;
    const font = "12px system-ui, sans-serif";
    const rule = { stroke: css("--line"), width: 1 };
    const axis = { stroke: css("--text"), grid: rule, ticks: rule, font, labelFont: font, labelSize: 20 };
    const vertical = { ...axis, label: y, size: 62, values: (u, ticks) => ticks.map(short) };
    if (this.logarithmic) Object.assign(vertical, { splits: logTicks, filter: (u, ticks) => ticks });
    const horizontal = { ...axis, label: x, size: 32, values: (u, ticks) => ticks.map(place) };
    if (this.content.logX) Object.assign(horizontal, { splits: logTicks, filter: (u, ticks) => ticks });
    this.plot = new uPlot({
      ...seriesOf(lines, x),
      width: this.place.clientWidth, height: HEIGHT, padding: [null, 10, null, null], // room for half a cross
      scales: { x: this.content.logX ? { time: false, distr: 3, range: (u, low, high) => [Math.max(low, this.smallest()), Math.max(high, this.smallest() * 2)] } : { time: false }, y: this.logarithmic ? { distr: 3, range: (u, low, high) => this.range(low, high) } : {} },
      axes: [horizontal, vertical],
      cursor: { focus: { prox: 24 }, sync: this.group && { key: this.group, setSeries: true, scales: [null, null] }, dataIdx: nearest, points: { size: 7 }, drag: { x: true, y: false }, bind: { dblclick: (u, target, handle) => (event) => { handle(event); this.zoom(null); } } },
      focus: { alpha: 0.3 },
      legend: { markers: { width: 3, dash: (u, index) => u.series[index].marker } },
      hooks: { setSelect: [(u) => this.selected(u)], draw: [(u) => this.decorate(u)], setSeries: [(u, index, options) => this.follow(u, index, options)] },
    }, this.joined(), this.place);
    if (this.window) this.plot.setScale("x", this.window);
  }

  selected(u) {
    const { left, width } = u.select;
    if (!this.onZoom || !(width > 0)) return;
    this.zoom({ min: u.posToVal(left, "x"), max: u.posToVal(left + width, "x") });
  }

  // A line's band and what is thin beside it are hidden with it.
  follow(u, index, { show }) {
    if (show === undefined || index == null) return;
    for (let at = index + 1; u.series[at]?.class === "aside"; at++)
      if (u.series[at].show !== show) u.setSeries(at, { show }, true, false);
  }

  // What diverges leaves the picture at the top, so that the others can still be told apart.
  range(low, high) {
    if (!(low > 0)) return [0.1, 1];
    const top = Math.max(low, Math.min(high, this.top()));
    const margin = Math.max(1.02, (top / low) ** 0.04);
    return [low / margin, top * margin];
  }

  top() {
    const starts = this.content.lines.map((line) => all(line).find(([, y]) => y > 0)?.[1] ?? 0);
    return 8 * Math.max(...starts);
  }

  // The first point at which a line is above the picture; decorate marks it.
  leaving(line) {
    const top = this.top();
    return all(line).find(([, y]) => y > top);
  }

  decorate(u) {
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    const { target, lines } = this.content;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    if (target != null) {
      const y = u.valToPos(target, "y", true);
      ctx.strokeStyle = css("--muted");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(left, y);
      ctx.lineTo(left + width, y);
      ctx.stroke();
    }
    for (const [index, line] of lines.entries()) {
      if (line.reached == null) continue;
      const x = u.valToPos(line.reached, "x", true);
      ctx.strokeStyle = colour(index);
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, u.valToPos(target, "y", true));
      ctx.lineTo(x, top + height);
      ctx.stroke();
    }
    ctx.setLineDash([]); // also what uPlot left
    ctx.lineWidth = 2 * devicePixelRatio;
    const size = 5 * devicePixelRatio;
    for (const [index, line] of lines.entries()) {
      ctx.strokeStyle = colour(index);
      for (const [place, value] of line.crosses ?? []) {
        const x = u.valToPos(place, "x", true);
        const y = Math.min(Math.max(u.valToPos(value, "y", true), top + size), top + height - size);
        ctx.beginPath();
        ctx.moveTo(x - size, y - size);
        ctx.lineTo(x + size, y + size);
        ctx.moveTo(x - size, y + size);
        ctx.lineTo(x + size, y - size);
        ctx.stroke();
      }
      const leaving = this.logarithmic && this.leaving(line);
      if (leaving) {
        const x = u.valToPos(leaving[0], "x", true);
        ctx.fillStyle = colour(index);
        ctx.beginPath();
        ctx.moveTo(x, top);
        ctx.lineTo(x - size, top + 2 * size);
        ctx.lineTo(x + size, top + 2 * size);
        ctx.fill();
      }
    }
    ctx.restore();
  }
}
