// Uploads a data set, and says how far it is: bytes sent, then samples checked.

const form = document.getElementById("upload");
const progress = document.getElementById("progress");
const count = (value) => value.toLocaleString("en");

function show(text, fraction) {
  progress.textContent = text;
  if (fraction === undefined) return;
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = fraction;
  bar.setAttribute("aria-label", "Progress of the upload");
  progress.prepend(bar, " ");
}

async function poll(id) {
  const answer = await fetch(`/v1/datasets/progress/${id}`).catch(() => undefined);
  if (!answer?.ok) return;
  const { stage, done, total } = await answer.json();
  if (stage === "checking" && total) show(`${count(done)} of ${count(total)} samples checked`, done / total);
  else show({ waiting: "Waiting …", unpacking: "Unpacking …", checking: "Checking …", storing: "Storing …" }[stage]);
}

// Files may be dropped anywhere on the page; the name is guessed from the first.
const files = form.querySelector("input[type=file]");
addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("dropping"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) form.classList.remove("dropping"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("dropping");
  if (!event.dataTransfer.files.length) return;
  files.files = event.dataTransfer.files;
  files.dispatchEvent(new Event("change"));
});

// Of a table: which column is to be predicted, offered from its first line.
const format = form.querySelector("select[name=format]");
const target = document.getElementById("target");
const offer = () => { target.hidden = format.value !== "table"; };
format.addEventListener("change", offer);
offer();
async function columnsOf(table) {
  const [line] = (await table.slice(0, 65536).text()).split(/\r?\n/);
  const by = ["\t", ";", ","].find((one) => line.includes(one)) ?? ",";
  return line.split(by).map((name) => name.trim().replace(/^"(.*)"$/, "$1")).filter(Boolean);
}

files.addEventListener("change", async () => {
  const [first] = files.files;
  if (!first) return;
  const name = form.querySelector("input[name=name]");
  if (!name.value) name.value = first.name.replace(/\.[^.]*$/, "");
  const guess = { csv: "table", tsv: "table", npz: "npz", txt: "text", zip: "image_folder" }[first.name.split(".").at(-1).toLowerCase()];
  if (guess && [...format.options].some((option) => option.value === guess)) format.value = guess;
  offer();
  const names = /\.(csv|tsv)$/i.test(first.name) ? await columnsOf(first) : [];
  document.getElementById("columns").replaceChildren(...names.map((name) => new Option(name)));
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const body = new FormData(form);
  const predicted = format.value === "table" && body.get("target");
  body.delete("target");
  try {
    if (predicted) body.set("params", JSON.stringify({ ...JSON.parse(body.get("params") || "{}"), target: predicted }));
  } catch { /* the service says what is wrong with the parameters */ }
  body.append("progress_id", id);
  const request = new XMLHttpRequest();
  let timer;
  const end = (text) => {
    clearInterval(timer);
    button.disabled = false;
    show(text);
  };
  request.upload.addEventListener("progress", ({ loaded, total }) => show(`${count(loaded)} of ${count(total)} bytes sent`, loaded / total));
  request.upload.addEventListener("load", () => { timer = setInterval(poll, 500, id); });
  request.addEventListener("error", () => end("The service does not answer."));
  request.addEventListener("load", () => {
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* below */ }
    if (request.status !== 201) return end(answer.detail ?? answer.title ?? `The upload failed (${request.status}).`);
    clearInterval(timer);
    location.assign(`/datasets/${encodeURIComponent(answer.id)}`);
  });
  button.disabled = true;
  show("Sending …");
  request.open("POST", "/v1/datasets");
  request.send(body);
});
