// Choosing runs to compare: what was chosen stays chosen while rows are filtered, sorted,
// refreshed, or on another page of the list.

import "./live.js";

const form = document.getElementById("choose");
const button = document.getElementById("compare");
const boxes = () => [...form.querySelectorAll("input[name=run][type=checkbox]")];
let chosen = new Set(JSON.parse(sessionStorage.getItem("chosen") ?? "[]"));

function keep() {
  sessionStorage.setItem("chosen", JSON.stringify([...chosen]));
}

// Ticks what is chosen, and sends along what is chosen but not shown.
function show() {
  const shown = new Set();
  for (const box of boxes()) {
    box.checked = chosen.has(box.value);
    shown.add(box.value);
  }
  for (const old of form.querySelectorAll("input[name=run][type=hidden]")) old.remove();
  const others = [...chosen].filter((id) => !shown.has(id));
  for (const id of others) {
    form.append(Object.assign(document.createElement("input"), { type: "hidden", name: "run", value: id }));
  }
  const all = document.getElementById("choose-all");
  if (all) {
    all.hidden = false;
    all.checked = shown.size > 0 && [...shown].every((id) => chosen.has(id));
  }
  count(others.length);
}

function count(others) {
  if (!button) return;
  const most = Number(button.dataset.most);
  const elsewhere = others ? `${others} of them not shown. ` : "";
  button.disabled = chosen.size < 2 || chosen.size > most;
  button.textContent = chosen.size ? `Compare (${chosen.size})` : "Compare";
  document.getElementById("chosen").textContent =
    chosen.size > most ? `${elsewhere}At most ${most} can be compared.`
    : chosen.size < 2 ? `${elsewhere}Choose two runs or more.` : elsewhere;
  const forget = document.getElementById("others");
  if (forget) forget.hidden = !chosen.size;
}

function choose(box, is) {
  is ? chosen.add(box.value) : chosen.delete(box.value);
}

form.addEventListener("change", (event) => {
  if (event.target.id === "choose-all") for (const box of boxes()) choose(box, event.target.checked);
  else if (event.target.name === "run") choose(event.target, event.target.checked);
  else return;
  keep();
  show();
});
form.addEventListener("submit", (event) => {
  if (event.submitter?.name === "do") return sessionStorage.removeItem("chosen");
  // A comparison's address names runs, and nothing else.
  const rest = form.querySelectorAll("[name=back], [name=tag], [name=project]");
  for (const field of rest) field.disabled = true;
  setTimeout(() => rest.forEach((field) => (field.disabled = false)));
});
// Addresses say only what differs from the usual.
const USUAL = { sort: "-created_at", limit: "100" };
document.addEventListener("htmx:configRequest", ({ detail: { formData } }) => {
  for (const [name, value] of [...formData.entries()]) {
    if (value === "" || USUAL[name] === value) formData.delete(name);
  }
  if (formData.getAll("columns").join() === "usual") formData.delete("columns");
});
document.getElementById("forget")?.addEventListener("click", () => {
  chosen.clear();
  keep();
  show();
});
document.addEventListener("live", show);
document.addEventListener("htmx:afterSettle", show);
addEventListener("pageshow", (event) => {
  if (event.persisted) chosen = new Set(JSON.parse(sessionStorage.getItem("chosen") ?? "[]"));
  show();
});
show();
