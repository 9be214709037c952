// A job's page: its log as it is written, by server-sent events.

import "./list.js";
import { active, refresh } from "./live.js";

const MOST_LINES = 2000;
const list = document.getElementById("log");
const places = JSON.parse(list.dataset.places);
let last = list.dataset.last;
let connection;

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function addLine(line) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 20;
  const item = element("li", line.level, "");
  item.append(
    element("time", "", line.at.slice(11, 19)), " ",
    element("span", "place", places[line.run_id] ?? ""), " ",
    element("span", "", line.message),
  );
  list.append(item);
  if (list.children.length > MOST_LINES) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function take(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (!fields.id) return;
  last = fields.id;
  if (fields.event === "log") addLine(JSON.parse(fields.data));
  if (fields.event === "status") refresh();
}

// EventSource cannot be told where to begin, and would be sent the whole history.
async function follow() {
  connection = new AbortController();
  const { signal } = connection;
  while (active() && !signal.aborted) {
    try {
      const headers = { "Last-Event-ID": last };
      const response = await fetch(`/v1/jobs/${list.dataset.job}/events`, { headers, signal });
      if (!response.ok) throw new Error(response.status);
      let rest = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const blocks = (rest + part.value).split("\n\n");
        rest = blocks.pop();
        blocks.forEach(take);
      }
    } catch {
      // Below we wait and try again; live.js says so when the service is away.
    }
    if (!signal.aborted) {
      await refresh();
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
  connection = undefined;
}

list.scrollTop = list.scrollHeight;
follow();
document.addEventListener("live", () => { if (!connection && active() && !document.hidden) follow(); });
document.addEventListener("visibilitychange", () => { if (document.hidden) connection?.abort(); });

// The picture of the runs is drawn anew when the job has ended: the repeated parameter says the
// same, and makes it another address, which the browser has to ask for.
let drawn = !active();
document.addEventListener("live", () => {
  if (drawn || active()) return;
  drawn = true;
  const picture = document.querySelector('.figure img[src^="/v1/comparisons"]');
  if (picture) picture.setAttribute("src", `${picture.getAttribute("src")}&format=png`);
});
