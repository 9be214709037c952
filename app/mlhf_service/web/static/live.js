// Keeps the parts of a page that are marked data-live as the server would render them now,
// and sends what its buttons ask for. Nothing is formatted twice: the page itself is asked.

const BUSY = 2000, QUIET = 15000;
const parts = () => document.querySelectorAll("[data-live]");
const known = new Map([...parts()].map((part) => [part.id, part.innerHTML]));
let timer;
let failing = false;

export function say(text, wrong = false) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.classList.toggle("wrong", wrong);
}

export const active = () => document.querySelector("[data-active]")?.dataset.active === "true";

// Asks for the page again: often while something runs, never while nobody looks.
export async function refresh() {
  clearTimeout(timer);
  try {
    const response = await fetch(location.href);
    if (!response.ok) throw new Error(response.status);
    show(new DOMParser().parseFromString(await response.text(), "text/html"));
    if (failing) say("");
    failing = false;
  } catch {
    failing = true;
    say("The service does not answer. Trying again …", true);
  }
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, active() || failing ? BUSY : QUIET);
}

function show(fresh) {
  for (const part of parts()) {
    const next = fresh.getElementById(part.id);
    if (!next) continue;
    Object.assign(part.dataset, next.dataset);
    if (known.get(part.id) === next.innerHTML) continue;
    known.set(part.id, next.innerHTML);
    replace(part, next);
  }
  document.dispatchEvent(new Event("live"));
}

// What the user has chosen and where the keyboard is outlive the change.
function replace(part, next) {
  const checked = [...part.querySelectorAll("input:checked")].map((box) => box.id);
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.replaceChildren(...next.childNodes);
  for (const id of checked) {
    const box = document.getElementById(id);
    if (box) box.checked = true;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function post(button) {
  if (button.dataset.confirm && !confirm(button.dataset.confirm)) return;
  button.disabled = true;
  say("");
  try {
    const body = button.dataset.body;
    const headers = body ? { "Content-Type": "application/json" } : {};
    const response = await fetch(button.dataset.post, { method: "POST", headers, body });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail ?? answer.title);
    if (response.status === 201) location.assign(`/jobs/${encodeURIComponent(answer.id)}`);
    else await refresh();
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button) return;
  event.preventDefault();
  post(button);
});
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
schedule();
