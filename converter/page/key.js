// The API key: asked for in a dialog, and kept for this tab alone.

const NAME = "converter.key";
const dialog = document.getElementById("ask");
const input = document.getElementById("key");
const problem = document.getElementById("ask-problem");
const button = document.getElementById("forget");

let asking = null; // one dialog, however many calls need a key at once

export function known() {
  return sessionStorage.getItem(NAME);
}

export function forget() {
  sessionStorage.removeItem(NAME);
  button.hidden = true;
}

/** Ask for a key; whether one was given. `refused`: the last one was not taken. */
export function ask(refused) {
  asking ??= open(refused).finally(() => (asking = null));
  return asking;
}

function open(refused) {
  problem.textContent = refused ? "This key is not valid." : "";
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given"), { once: true });
  });
}

dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = input.value.trim();
  if (!/^[!-~]+$/.test(key)) {
    problem.textContent = key ? "A key has no spaces and no letters beyond ASCII." : "Please give a key.";
    input.focus();
    return;
  }
  sessionStorage.setItem(NAME, key);
  input.value = "";
  button.hidden = false;
  dialog.close("given");
});

document.getElementById("ask-cancel").addEventListener("click", () => dialog.close());
button.addEventListener("click", forget);
button.hidden = known() === null;
