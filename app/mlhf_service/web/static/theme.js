// Light or dark: as the system has it, or as it was last switched here. It stands before the
// page, so that nothing is drawn in the wrong colours first.

const KEY = "theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function stored() {
  try { return localStorage.getItem(KEY); } catch { return null; } // storage may be forbidden
}

function apply() {
  const chosen = stored();
  const dark = chosen ? chosen === "dark" : system.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.documentElement.classList.toggle("dark-mode", dark); // Swagger UI's word
  const button = document.getElementById("theme");
  if (button) {
    button.hidden = false;
    button.setAttribute("aria-pressed", String(dark));
  }
  document.dispatchEvent(new Event("theme"));
}

function flip() {
  const dark = document.documentElement.dataset.theme !== "dark";
  try { localStorage.setItem(KEY, dark ? "dark" : "light"); } catch { /* for this page only */ }
  apply();
}

apply();
system.addEventListener("change", apply);
addEventListener("storage", (event) => event.key === KEY && apply());
addEventListener("DOMContentLoaded", () => {
  apply();
  document.getElementById("theme")?.addEventListener("click", flip);
});
