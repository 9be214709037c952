// A button pressed before the page's own script has come is pressed again once it has: nothing
// that a user does is lost while a page loads.

const SCRIPTED = "button[type=button], button[data-post]";
const early = [];

function keep(event, again) {
  event.preventDefault();
  event.stopImmediatePropagation();
  early.push(again);
}

function clicked(event) {
  const button = event.target.closest(SCRIPTED);
  if (button) keep(event, () => button.click());
}

function submitted(event) {
  const { target, submitter } = event;
  if (target.matches("form[data-scripted]")) keep(event, () => target.requestSubmit(submitter));
}

document.addEventListener("click", clicked, true);
document.addEventListener("submit", submitted, true);

// Modules have run when it fires, each with its listeners.
document.addEventListener("DOMContentLoaded", () => {
  document.removeEventListener("click", clicked, true);
  document.removeEventListener("submit", submitted, true);
  setTimeout(() => early.forEach((again) => again()));
});
