// A new job: the form, the JSON, curl and Python are one document, checked by the service as it
// is typed.

import { SchemaForm, element } from "./form.js";

const PAUSE = 400; // ms without typing before the service is asked
const form = document.getElementById("new");
const text = document.getElementById("spec");
const verdict = document.getElementById("verdict");
const code = document.getElementById("code");
const start = document.getElementById("start");
const { kinds, names } = JSON.parse(form.dataset.described);
const origin = form.dataset.origin;
let job = JSON.parse(text.value);
const before = structuredClone(job);
let timer;
let asked = 0;

const kindChoice = element("select", { id: "kind" }, ...Object.keys(kinds).map((name) => element("option", { value: name }, name)));
const fields = element("div");
const schemaForm = new SchemaForm(fields, names, () => { show(); check(); });
const place = document.getElementById("fields");
place.append(element("div", { class: "field" }, element("label", { for: "kind" }, "kind"), kindChoice), fields);
place.hidden = false;
document.getElementById("tabs").hidden = false;

function python(value, indent = "") {
  const deeper = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return value.length ? `[${value.map((one) => python(one, indent)).join(", ")}]` : "[]";
  if (typeof value === "object") {
    const rows = Object.entries(value).map(([key, one]) => `${deeper}${JSON.stringify(key)}: ${python(one, deeper)},\n`);
    return rows.length ? `{\n${rows.join("")}${indent}}` : "{}";
  }
  return JSON.stringify(value);
}

const CODE = {
  curl: () => `curl -s '${location.origin}/v1/jobs' \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(job, null, 1).replaceAll("'", "'\\''")}'`,
  python: () => `from mlhf_service.client import Client\n\nclient = Client("${location.origin}")\njob = client.submit(${python(job)})\nclient.watch(job)\nprint(client.compare(job))`,
};

function show(withText = true) {
  if (withText) text.value = JSON.stringify(job, null, 2);
  const chosen = document.querySelector("#tabs [aria-pressed=true]").dataset.show;
  text.hidden = chosen !== "json";
  code.hidden = chosen === "json";
  if (chosen in CODE) code.firstElementChild.textContent = CODE[chosen]();
}

function rebuild() {
  kindChoice.value = job.kind;
  if (kinds[job.kind]) schemaForm.show(kinds[job.kind], job);
}

function say(wrong, ...parts) {
  verdict.classList.toggle("wrong", wrong);
  verdict.replaceChildren(...parts);
  start.disabled = wrong;
}

const count = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
function bytes(value) {
  return value < 1e9 ? `${count(value / 2 ** 20)} MiB` : `${(value / 2 ** 30).toFixed(1)} GiB`;
}
function seconds(value) {
  if (value == null) return "time not known: nothing like it was trained here yet";
  return value < 90 ? `about ${Math.max(1, Math.round(value))} s of training` : `about ${Math.round(value / 60)} min of training`;
}

function estimate(found) {
  const facts = [`${count(found.runs)} ${found.runs === 1 ? "run" : "runs"}`, `${count(found.parameters)} parameters`, `${bytes(found.memory_bytes)} of memory`];
  if (found.total_steps) facts.push(`${count(found.total_steps)} steps each`);
  facts.push(seconds(found.seconds));
  return `Valid: ${facts.join(", ")}.`;
}

function check() {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE);
}

async function ask() {
  const mine = ++asked;
  const response = await send("/v1/jobs?validate_only=true", job).catch(() => undefined);
  if (mine !== asked) return;
  if (!response) return say(true, "The service does not answer.");
  const answer = await response.json();
  if (response.ok) {
    schemaForm.mark([]);
    return say(false, estimate(answer));
  }
  const rest = schemaForm.mark(answer.errors ?? []);
  const list = (answer.errors?.length ? answer.errors : [{ pointer: "", detail: answer.detail ?? answer.title }]).map(({ pointer, detail }) => element("li", {}, element("code", {}, pointer), ` ${detail}`));
  say(true, rest.length === list.length ? "Not valid:" : "Not valid; see the marked fields:", element("ul", {}, ...list));
}

const send = (address, body) => fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// Of a clone only what was changed is sent; a field that was taken out gets its default again.
function changes() {
  const schema = kinds[job.kind].properties;
  const gone = Object.keys(before).filter((key) => !(key in job) && key in schema);
  return Object.fromEntries([...Object.entries(job), ...gone.map((key) => [key, schema[key].default ?? null])]);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  start.disabled = true;
  const clone = origin && job.kind === before.kind;
  const response = await (clone ? send(`/v1/jobs/${origin}/clone`, { changes: changes() }) : send("/v1/jobs", job)).catch(() => undefined);
  const answer = await response?.json();
  if (response?.ok) location.assign(`/jobs/${encodeURIComponent(answer.id)}`);
  else say(true, answer?.detail ?? "The service does not answer.");
});

text.addEventListener("input", () => {
  let read;
  try { read = JSON.parse(text.value); } catch (error) { return say(true, `This is not JSON: ${error.message}`); }
  if (typeof read !== "object" || read === null || Array.isArray(read)) return say(true, "A job is a JSON object.");
  job = read;
  rebuild();
  show(false);
  check();
});

kindChoice.addEventListener("change", () => {
  const properties = kinds[kindChoice.value].properties;
  const optimizer = job.optimizer ?? job.optimizers?.[0] ?? { name: "adam" };
  const { grid: _, ...single } = optimizer;
  const offered = { optimizer: single, optimizers: job.optimizers ?? [optimizer], model: { name: "mlp" }, dataset: { name: "digits" }, budget: { epochs: 5 }, ...job, kind: kindChoice.value };
  job = Object.fromEntries(Object.entries(offered).filter(([key]) => key in properties));
  rebuild();
  show();
  check();
});

document.getElementById("tabs").addEventListener("click", async ({ target }) => {
  if (target.id === "copy") {
    await navigator.clipboard?.writeText(code.hidden ? text.value : code.textContent);
    return;
  }
  if (!target.dataset.show) return;
  for (const one of document.querySelectorAll("#tabs [data-show]")) one.setAttribute("aria-pressed", String(one === target));
  show();
});

rebuild();
show();
ask();
