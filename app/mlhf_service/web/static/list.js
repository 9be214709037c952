// Choosing runs to compare.

import "./live.js";

const form = document.getElementById("choose");
const button = document.getElementById("compare");

function count() {
  if (!button) return;
  const chosen = form.querySelectorAll("input[name=run]:checked").length;
  const most = Number(button.dataset.most);
  button.disabled = chosen < 2 || chosen > most;
  button.textContent = chosen ? `Compare (${chosen})` : "Compare";
  document.getElementById("chosen").textContent =
    chosen > most ? `At most ${most} can be compared.` : chosen < 2 ? "Choose two runs or more." : "";
}

form.addEventListener("change", count);
document.addEventListener("live", count);
addEventListener("pageshow", count);
count();
