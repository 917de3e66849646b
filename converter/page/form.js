// The form: one field for each input of a template, made from the JSON Schema of its inputs.
//
// Leaves to others: the controls (`controls.js`), and what is valid: the converter says so, and names the fields.

import { kindOf, makeControl } from "./controls.js";
import { make, sentence } from "./dom.js";
import { makeMask } from "./mask.js";

const SHORT = new Set(["cfg", "clip", "fps", "id", "url", "vae"]); // words that are written in capitals
const MEDIA = new Set(["image", "video", "audio"]);

const fields = document.getElementById("fields");
const options = document.getElementById("options");
const more = document.getElementById("more");

let shown = new Map(); // by input name
let offered = null;

/** Show the inputs of a template. What was typed stays where the next template has an input of that name and kind. */
export function showInputs(schema) {
  const before = shown;
  const focused = document.activeElement?.id;
  shown = new Map();
  fields.replaceChildren();
  options.replaceChildren();
  const required = new Set(schema.required ?? []);
  for (const [name, each] of Object.entries(schema.properties ?? {})) {
    const field = makeField(name, each, required.has(name));
    const typed = before.get(name)?.kind === field.kind ? before.get(name).control.read() : undefined;
    if (typed !== undefined) field.control.write(typed);
    shown.set(name, field);
    field.first = required.has(name) || MEDIA.has(field.kind);
  }
  const later = [...shown.values()].filter((field) => !field.first);
  for (const field of shown.values()) if (field.first) fields.append(field.element);
  for (const wide of [true, false]) {
    options.append(...later.filter((field) => Boolean(field.control.wide) === wide).map((field) => field.element));
  }
  for (const field of before.values()) field.control.close?.();
  offerPicture(offered);
  layMasks();
  more.hidden = options.childElementCount === 0;
  if (focused) document.getElementById(focused)?.focus();
}

/** Let each mask be painted on the picture beside it. */
function layMasks() {
  const picture = [...shown.values()].find(({ kind, control }) => kind === "image" && !control.follow);
  for (const { control } of shown.values()) {
    if (!control.follow || !picture) continue;
    control.follow(picture.control.read() ?? null);
    picture.element.addEventListener("input", () => control.follow(picture.control.read() ?? null));
  }
}

function makeField(name, schema, required) {
  const id = `input-${name}`;
  const kind = kindOf(name, schema);
  const control = kind === "image" && /mask/i.test(name) ? makeMask(id) : makeControl(id, name, schema, required);
  const label = labelOf(name, schema);
  const problem = make("p", { className: "problem", id: `${id}-problem` });
  const help = make("p", { className: "help", id: `${id}-help` }, schema.description ?? "");
  control.target.setAttribute("aria-describedby", `${problem.id} ${help.id}`);
  if (required) control.target.setAttribute("aria-required", "true");
  const above = make("label", { htmlFor: id }, label);
  if (!required && MEDIA.has(kind)) above.append(make("span", { className: "optional" }, "optional"));
  const element = make("div", { className: `field ${kind}` }, above, control.element, problem, help);
  element.classList.toggle("wide", Boolean(control.wide));
  const complain = (text) => {
    problem.textContent = text;
    if (text) control.target.setAttribute("aria-invalid", "true");
    else control.target.removeAttribute("aria-invalid");
  };
  element.addEventListener("input", () => complain(""));
  return { kind, label, control, element, complain, places: schema["x-node"] ?? [] };
}

function labelOf(name, schema) {
  const words = (schema.title ?? name).split(/[\s_-]+/).map((word) => (SHORT.has(word) ? word.toUpperCase() : word));
  const label = words.join(" ");
  return label.charAt(0).toUpperCase() + label.slice(1);
}

/** Offer a picture that was made, a File, to every input that takes one; it stays offered. */
export function offerPicture(file) {
  offered = file;
  for (const { kind, control } of shown.values()) if (kind === "image") control.offer(file);
}

/** The inputs that were given, by name: values as `read` of a control has them. */
export function readInputs() {
  const given = [...shown].map(([name, field]) => [name, field.control.read()]);
  return new Map(given.filter(([, value]) => value !== undefined));
}

/** The inputs that are drawn where they are left out. */
export function seedNames() {
  return [...shown].filter(([, field]) => field.kind === "seed").map(([name]) => name);
}

/** Put a value into a field, if there is such a one. */
export function writeInput(name, value) {
  shown.get(name)?.control.write(value);
}

/** Take back what was said of the fields. */
export function clearProblems() {
  for (const field of shown.values()) field.complain("");
}

/**
 * Say what is wrong beside the fields that it is about, and go to the first of them.
 * The complaints are as in `faults.js`; those that are about no field are given back.
 */
export function showComplaints(complaints) {
  const others = complaints.filter(({ pointer, place, input, detail }) => {
    const name = input ?? unescape(/^\/inputs\/([^/]+)/.exec(pointer)?.[1] ?? "");
    const field = shown.get(name) ?? [...shown.values()].find(({ places }) => places.includes(place));
    field?.complain(sentence(`${field.label} ${detail}`));
    return !field;
  });
  const wrong = [...shown.values()].find((field) => field.control.target.hasAttribute("aria-invalid"));
  if (wrong) {
    if (options.contains(wrong.element)) more.open = true;
    wrong.control.target.focus();
  }
  return others;
}

function unescape(token) {
  return token.replaceAll("~1", "/").replaceAll("~0", "~");
}
