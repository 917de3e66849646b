// The light: whether the replica takes work, and what its queue holds; asked now and then while the tab is looked at.

import { Fault, call } from "./api.js";

const PAUSE = 3000; // milliseconds between two questions

const light = document.getElementById("light");
const [name, queue] = [light.querySelector("strong"), light.querySelector(".queue")];

const NAMES = { READY: "Ready", BUSY: "Busy", STARTING: "Starting", FAILED: "Not working", DRAINING: "Shutting down" };

let timer = 0;
let gone = false; // the status is not to be had here
let before = null; // state and engine, as they were
let told = () => {};

/**
 * Ask from here on; `tell` is told with each answer whether the service is another than before. Where the status is not
 * to be had at this address, there is no light.
 */
export function watch(tell) {
  told = tell;
  document.addEventListener("visibilitychange", look);
  look();
}

/** Ask now, and then again every while. */
export async function look() {
  clearTimeout(timer);
  if (document.hidden || gone) return;
  try {
    const status = await (await call("status", { quiet: true })).json();
    show(status.state, NAMES[status.state] ?? status.state, describe(status));
    const now = [status.ready, status.engine.instance].join();
    told(before !== null && now !== before);
    before = now;
  } catch (error) {
    if (error instanceof Fault && error.problem.status) {
      gone = light.hidden = true;
      return;
    }
    show("GONE", "Not reached", "");
  }
  clearTimeout(timer);
  timer = setTimeout(look, PAUSE);
}

function describe({ state, reason, queue: { running, waiting } }) {
  if (state !== "READY" && state !== "BUSY") return reason;
  const parts = [running ? `${running} running` : "", waiting ? `${waiting} waiting` : ""].filter(Boolean);
  return parts.join(", ");
}

function show(state, title, text) {
  light.hidden = false;
  light.dataset.state = state.toLowerCase();
  name.textContent = title;
  queue.textContent = text;
}
