// The page: a template is picked, its inputs are given, it runs, and its outputs are shown.

import { Fault, HOME, call, events } from "./api.js";
import { bodyOf, filesOf } from "./code.js";
import { complaintsOf } from "./faults.js";
import { clearProblems, readInputs, seedNames, showComplaints } from "./form.js";
import { known } from "./key.js";
import { look, watch } from "./light.js";
import { showResult } from "./outputs.js";
import { begin, end, follow, say, showFault } from "./stage.js";
import { areUnsure, listTemplates, picked, showTemplate } from "./templates.js";

const at = (id) => document.getElementById(id);
const [form, run, cancel] = ["form", "run", "cancel"].map(at);

let running = null; // what cancels the run that goes on

// Runs ----------------------------------------------------------------------------------------------------------------

async function start() {
  if (running) return;
  if (!picked()) return list();
  running = new AbortController();
  run.setAttribute("aria-disabled", "true");
  clearProblems();
  begin();
  const request = { home: HOME, template: picked(), inputs: readInputs(), keyed: false };
  try {
    const result = await carryOut(request, running.signal);
    finish(result, request);
  } catch (error) {
    end(false);
    explain(error);
  } finally {
    running = null;
    run.removeAttribute("aria-disabled");
    look();
  }
}

async function carryOut({ template, inputs }, signal) {
  const headers = { Accept: "text/event-stream" };
  const files = filesOf(inputs);
  let body = bodyOf(inputs);
  if (files.length) {
    const parts = new FormData();
    parts.append("request", new Blob([body], { type: "application/json" }));
    for (const [name, file] of files) parts.append(name, file);
    body = parts;
  } else {
    headers["Content-Type"] = "application/json";
  }
  const path = `v1/workflows/${encodeURIComponent(template)}`;
  const response = await call(path, { method: "POST", headers, body, signal });
  for await (const event of events(response)) {
    if (event.event === "result") return event.data;
    if (event.event === "error") throw new Fault(event.data);
    follow(event);
  }
  throw new Fault({ title: "Connection lost", detail: "The connection was lost before the end." });
}

function finish(result, request) {
  const drawn = seedNames().filter((name) => !request.inputs.has(name) && result.inputs?.[name] !== undefined);
  const inputs = new Map([...request.inputs, ...drawn.map((name) => [name, result.inputs[name]])]);
  showResult(result, { ...request, inputs, keyed: known() !== null }, drawn);
  end(true);
  say(`Done: ${result.outputs.length === 1 ? "one output" : `${result.outputs.length} outputs`}`);
}

function explain(error) {
  if (error.name === "AbortError") {
    showFault({ title: "Canceled", detail: "Nothing was made." }, [], true);
    return;
  }
  if (!(error instanceof Fault)) throw error;
  const complaints = complaintsOf(error.problem);
  const others = showComplaints(complaints);
  if (complaints.length && !others.length) say(error.message);
  else showFault(error.problem, others.filter(({ pointer }) => pointer !== undefined));
}

/** Do something that calls the converter, and show what goes wrong with it. */
function guarded(work) {
  return () => work().catch(explain);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
cancel.addEventListener("click", () => {
  running?.abort();
  run.focus();
});
at("template").addEventListener("change", guarded(showTemplate));
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());

const list = guarded(listTemplates);
list();
watch((changed) => (changed || areUnsure()) && list());
