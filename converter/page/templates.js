// The templates to pick from: those that the engine can run, then those for which it lacks something.
//
// Asked for at the beginning and whenever the service is another than before: until its engine is up it can't say what
// there is for each. Invariant: the picked one stays picked, and its form is made anew only if its inputs have changed.

import { Fault, call } from "./api.js";
import { make, sentence } from "./dom.js";
import { showInputs } from "./form.js";

const FIRST = "txt2img"; // where there is one, it is what a first visitor sees

const picker = document.getElementById("template");
const about = document.getElementById("about");

let shown = ""; // what the form was made from
let unsure = false;

/** Whether it is not known yet of a template whether the engine can run it. */
export function areUnsure() {
  return unsure;
}

/** The name of the picked template. */
export function picked() {
  return picker.value;
}

/** Ask which templates there are, and show the picked one as it is. */
export async function listTemplates() {
  const { workflows } = await (await call("v1/workflows")).json();
  if (!workflows.length) throw new Fault({ title: "No templates", detail: "This service has no templates to try." });
  unsure = workflows.some((each) => each.available === null);
  const usable = workflows.filter((each) => each.available !== false);
  const lacking = workflows.filter((each) => each.available === false);
  const names = workflows.map((each) => each.name);
  const wanted = [picker.value, location.hash.slice(1), FIRST].find((name) => names.includes(name));
  picker.replaceChildren(...usable.map(optionOf));
  if (lacking.length) picker.append(make("optgroup", { label: "Not on this engine" }, ...lacking.map(optionOf)));
  picker.value = wanted ?? [...usable, ...lacking][0].name;
  await showTemplate();
}

function optionOf({ name, title }) {
  return make("option", { value: name }, title || name);
}

/** Show what the picked template is, and its form. */
export async function showTemplate() {
  const name = picker.value;
  const template = await (await call(`v1/workflows/${encodeURIComponent(name)}`)).json();
  if (picker.value !== name) return; // another was picked meanwhile
  about.replaceChildren(template.description ?? "");
  if (template.reason) about.append(make("strong", {}, ` ${sentence(template.reason)}`));
  history.replaceState(null, "", `#${name}`);
  const inputs = JSON.stringify([name, template.inputs]);
  if (inputs !== shown) showInputs(template.inputs);
  shown = inputs;
}
