// Lines over an axis, by uPlot: logarithmic or not, with bands, a target, and crosses where a
// curve leaves the finite numbers.

/* global uPlot */

const COLOURS = 7;
const DASHES = [[[], "solid"], [[8, 4], "dashed"], [[2, 3], "dotted"]];
const HEIGHT = 340;
export const AXES = { samples: "samples", steps: "steps", epochs: "epochs", wall_seconds: "training time (s)" };

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const short = (value) => (value == null ? "–" : String(Number(value.toPrecision(4))));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Ticks at 1, 2 and 5 of each decade; evenly where that gives too few.
function logTicks(u, axis, low, high) {
  const wide = high / low > 300;
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const digit of wide ? [1] : [1, 2, 5]) ticks.push(Number(`${digit}e${power}`));
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  if (inside.length > 2) return inside;
  const step = Number(`1e${Math.floor(Math.log10((high - low) / 2))}`);
  const unit = [1, 2, 5].find((digit) => (high - low) / (digit * step) <= 6) * step;
  const even = [];
  for (let tick = Math.ceil(low / unit) * unit; tick <= high; tick += unit) even.push(tick);
  return even;
}

// What diverges leaves the picture at the top, so that the others can still be told apart.
function logRange(lines) {
  return (u, low, high) => {
    if (!(low > 0)) return [0.1, 1];
    const starts = lines.map((line) => line.points.find(([, y]) => y > 0)?.[1] ?? 0);
    const top = Math.max(low, Math.min(high, 8 * Math.max(...starts)));
    const margin = Math.max(1.02, (top / low) ** 0.04);
    return [low / margin, top * margin];
  };
}

function nearest(u, series, at) {
  const values = u.data[series];
  for (let distance = 0; distance < values.length; distance++)
    for (const index of [at - distance, at + distance]) if (values[index] != null) return index;
  return at;
}

function decorate(target, lines) {
  return (u) => {
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    if (target != null) {
      const y = u.valToPos(target, "y", true);
      if (y >= top && y <= top + height) {
        ctx.strokeStyle = css("--muted");
        ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(left, y);
        ctx.lineTo(left + width, y);
        ctx.stroke();
        ctx.setLineDash([]);
      }
    }
    ctx.lineWidth = 2 * devicePixelRatio;
    for (const [index, line] of lines.entries()) {
      for (const [x, y] of line.crosses ?? []) {
        const size = 5 * devicePixelRatio;
        const px = u.valToPos(x, "x", true);
        const py = Math.min(Math.max(u.valToPos(y, "y", true), top + size), top + height - size);
        ctx.strokeStyle = colour(index);
        ctx.beginPath();
        ctx.moveTo(px - size, py - size);
        ctx.lineTo(px + size, py + size);
        ctx.moveTo(px - size, py + size);
        ctx.lineTo(px + size, py - size);
        ctx.stroke();
      }
    }
    ctx.restore();
  };
}

const colour = (index) => css(`--series-${index % COLOURS}`);

export class Chart {
  constructor(place) {
    this.place = place;
    new ResizeObserver(() => this.resize()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // lines: [{label, points: [[x, y or null]], band?: [[x, low, high]], crosses?: [[x, y]]}]
  show(content) {
    this.content = content;
    this.draw();
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  draw() {
    if (!this.content) return;
    const { lines, x, y, log, target } = this.content;
    this.plot?.destroy();
    this.plot = undefined;
    const drawn = lines.some((line) => line.points.some(([, value]) => value != null));
    this.place.classList.toggle("nothing", !drawn);
    this.place.textContent = drawn ? "" : "Nothing measured yet.";
    if (!drawn) return;
    const positive = lines.every((line) => line.points.every(([, value]) => value == null || value > 0));
    const logarithmic = log && positive;
    const series = [{ label: x, value: (u, value) => (value == null ? "–" : compact.format(value)) }];
    const bands = [];
    const tables = [];
    for (const [index, line] of lines.entries()) {
      const stroke = colour(index);
      const [dash, marker] = DASHES[Math.floor(index / COLOURS) % DASHES.length];
      series.push({
        label: line.label, stroke, width: 2, dash, marker,
        value: (u, value) => short(value), points: { show: line.points.length < 40, size: 5, fill: stroke },
      });
      const columns = [line.points.map(([at]) => at), line.points.map(([, value]) => value)];
      if (line.band) {
        const edge = { class: "band", stroke: "transparent", width: 0, points: { show: false } };
        bands.push({ series: [series.length + 1, series.length], fill: `${stroke}38` });
        series.push({ ...edge, label: "low" }, { ...edge, label: "high" });
        columns.push(line.band.map(([, low]) => low), line.band.map(([, , high]) => high));
      }
      tables.push(columns);
    }
    const axis = { stroke: css("--text"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
    const vertical = { ...axis, label: y, size: 62, labelSize: 20, values: (u, ticks) => ticks.map(short) };
    if (logarithmic) Object.assign(vertical, { splits: logTicks, filter: (u, ticks) => ticks });
    this.plot = new uPlot({
      width: this.place.clientWidth, height: HEIGHT, series, bands,
      scales: { x: { time: false }, y: logarithmic ? { distr: 3, range: logRange(lines) } : {} },
      axes: [{ ...axis, label: x, size: 32, labelSize: 20, values: (u, ticks) => ticks.map((tick) => compact.format(tick)) }, vertical],
      cursor: { dataIdx: nearest, points: { size: 7 }, drag: { x: true, y: false } },
      legend: { markers: { width: 3, dash: (u, index) => u.series[index].marker } },
      hooks: { draw: [decorate(target, lines)] },
    }, uPlot.join(tables), this.place);
  }
}
