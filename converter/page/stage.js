// The stage: what becomes of a run, from its first moment to its outputs or to the fault that it ended with.
//
// Leaves to others: calling (`api.js`), and how outputs look (`outputs.js`). What changes often is drawn; what a screen
// reader is told of it comes with each node and each quarter.

import { blobOf, make, sentence } from "./dom.js";
import { countDown, forgetWait } from "./retry.js";

const at = (id) => document.getElementById(id);
const [stage, work, result, nothing, fault] = ["stage", "work", "result", "nothing", "fault"].map(at);
const [preview, doing, again, bar, said] = ["preview", "doing", "again", "progress", "said"].map(at);

const STATES = {
  waiting: "Waiting for a place",
  staging: "Handing over the inputs",
  queued: "Waiting in the engine's queue",
  running: "Running",
  collecting: "Fetching the outputs",
};

let heard = ""; // the last that was said aloud

/** A run begins. */
export function begin() {
  forgetWait();
  fault.replaceChildren();
  nothing.hidden = result.hidden = true;
  work.hidden = false;
  again.textContent = "";
  bar.removeAttribute("value");
  dropPreview();
  tell("Sending");
  if (matchMedia("(max-width: 56rem)").matches) stage.scrollIntoView({ block: "start" });
}

/** Show one event of a run that goes on. */
export function follow({ event, data }) {
  if (event === "status" && data.state === "restarted") beginAgain();
  else if (event === "status") tell(statusOf(data));
  else if (event === "progress") showProgress(data);
  else if (event === "preview") showPreview(data);
}

/** What was heard of the run counts no more. What is said of that stays to its end: the next status follows at once. */
function beginAgain() {
  again.textContent = "The engine was lost: the run begins again.";
  doing.textContent = "Beginning again";
  bar.removeAttribute("value");
  dropPreview();
}

function statusOf({ state, position, estimated_seconds: seconds }) {
  const name = STATES[state] ?? state;
  if (!position) return name;
  return `${name}: ${position} before this one${seconds ? `, about ${Math.ceil(seconds)} s` : ""}`;
}

function showProgress({ value, nodes_done: done, nodes_total: total, class_type: node, step, steps }) {
  const far = again.textContent ? farIn(done, total, step, steps) : value;
  bar.value = far;
  if (!node) return;
  const count = `Node ${Math.min(done + 1, total)} of ${total}: ${node}`;
  doing.textContent = steps > 1 ? `${count}, step ${step} of ${steps}` : count;
  const quarter = Math.floor(far * 4) * 25;
  say(`${node}, ${quarter} percent`);
}

/** How far a repeat is, from 0 to 1: the service's own `value` holds until it has passed what was lost. */
function farIn(done, total, step, steps) {
  const within = step < steps ? step / steps : 0; // a node whose steps are all done may count as done already
  return Math.min(Math.max(bar.value, (done + within) / total), 1);
}

function showPreview({ content_type: type, data }) {
  const before = preview.src;
  preview.src = URL.createObjectURL(blobOf(data, type));
  preview.hidden = false;
  if (before) URL.revokeObjectURL(before);
}

function dropPreview() {
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.removeAttribute("src");
  preview.hidden = true;
}

/** The run has ended: with its result, which is shown elsewhere, or without one. */
export function end(succeeded) {
  work.hidden = true;
  dropPreview();
  const outputs = at("outputs");
  result.hidden = !succeeded && outputs.childElementCount === 0;
  nothing.hidden = !result.hidden;
  if (!succeeded) return;
  const picture = outputs.querySelector("img");
  const shown = picture ? picture.decode().catch(() => {}) : Promise.resolve();
  shown.then(() => outputs.scrollIntoView({ block: "nearest" }));
}

/** Show a fault that belongs to no field; `others` are problems of which the same is true. `calm`: it was wanted. */
export function showFault(problem, others = [], calm = false) {
  const { title, detail, node_id: node, class_type: kind, retry_after: seconds, request_id: id } = problem;
  forgetWait();
  const problems = others.map((each) => make("li", {}, sentence(`${each.pointer} ${each.detail}`)));
  const parts = [
    make("strong", {}, title ?? "Something went wrong"),
    problems.length ? make("ul", {}, ...problems) : make("p", {}, sentence(detail ?? "no reason was given")),
    node && make("p", {}, sentence(`at node ${node}${kind ? ` (${kind})` : ""}`)),
    seconds && countDown(seconds, say),
    id && make("p", { className: "help" }, "Request ", make("code", {}, id)),
  ];
  fault.replaceChildren(...parts.filter(Boolean));
  fault.classList.toggle("calm", calm);
  fault.scrollIntoView({ block: "nearest" });
  nothing.hidden = true;
}

function tell(text) {
  doing.textContent = text;
  say(text);
}

/** Say something to those who do not see the page; the same is said once. */
export function say(text) {
  if (text !== heard) said.textContent = heard = text;
}
