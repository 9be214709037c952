// Makes, rotates and revokes keys. A secret is shown once, and kept nowhere.

import { refresh, say } from "./live.js";

const DAY = 86_400_000;

async function ask(method, path, body) {
  say("");
  const headers = body ? { "Content-Type": "application/json" } : {};
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? answer.title);
  return answer;
}

function reveal(key) {
  document.getElementById("made-name").textContent = key.name;
  document.getElementById("secret").textContent = key.secret;
  document.getElementById("made").hidden = false;
}

async function act(action) {
  try {
    await action();
    await refresh();
  } catch (error) {
    say(error.message, true);
  }
}

const form = document.getElementById("make");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { name, scope, days } = Object.fromEntries(new FormData(form));
  const expires = days ? new Date(Date.now() + days * DAY).toISOString() : null;
  act(async () => {
    reveal(await ask("POST", "/v1/keys", { name, scopes: [scope], expires_at: expires }));
    form.reset();
  });
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-rotate], button[data-revoke]");
  if (!button) return;
  const { rotate, revoke, name } = button.dataset;
  if (rotate) act(async () => reveal(await ask("POST", `/v1/keys/${rotate}/rotate`)));
  else if (confirm(`Revoke ${name}? What uses it stops working.`)) act(() => ask("DELETE", `/v1/keys/${revoke}`));
});
