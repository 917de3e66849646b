// One control for each kind of input, chosen by its JSON Schema.
//
// A control is `{ element, read, write, target, wide }`: the element to show; the value, undefined where it is left to
// the template; a value put in; the element that has the focus; whether it wants the whole width. `read` gives numbers
// beyond what a double holds as BigInt, and files as File. Those for files have `offer`, for a picture that they may
// take, and `close`, for when they leave the page.

import { make, sizeOf } from "./dom.js";

const SHORT = 300; // a text of at most so many characters has one line

/** What kind of input a schema describes: the declared one, or what can be read from its shape. */
export function kindOf(name, schema) {
  if (schema["x-type"]) return schema["x-type"];
  if (schema.enum) return "choice";
  if ((schema.anyOf ?? schema.oneOf ?? []).some((each) => each.properties?.part)) return "image";
  if (schema.type === "integer" && schema.default === undefined && /seed/i.test(name)) return "seed";
  return schema.type ?? "string";
}

/** The control for an input. */
export function makeControl(id, name, schema, required) {
  const kind = kindOf(name, schema);
  switch (kind) {
    case "image":
    case "video":
    case "audio":
      return makeUpload(id, kind);
    case "choice":
      return schema.enum ? makeChoice(id, schema, required) : makeText(id, { maxLength: SHORT, ...schema });
    case "boolean":
      return makeSwitch(id, schema, required);
    case "seed":
      return makeSeed(id, schema);
    case "integer":
    case "number":
      return makeNumber(id, schema);
    default:
      return makeText(id, schema);
  }
}

function makeText(id, schema) {
  const long = (schema.maxLength ?? Infinity) > SHORT;
  const example = schema.examples?.[0];
  const input = long ? make("textarea", { id, rows: 3 }) : make("input", { id, type: "text", autocomplete: "off" });
  input.placeholder = example ? `For example: ${example}` : "";
  input.value = schema.default ?? "";
  const read = () => (input.value === (schema.default ?? "") ? undefined : input.value);
  return { element: input, target: input, wide: long, read, write: (value) => (input.value = value) };
}

function makeNumber(id, schema) {
  const { minimum, maximum, multipleOf } = schema;
  const span = (maximum ?? Infinity) - (minimum ?? -Infinity);
  const fine = schema.type === "integer" ? 1 : span <= 1 ? 0.05 : span <= 20 ? 0.1 : 0.5;
  const input = make("input", { id, type: "number", min: minimum, max: maximum, step: multipleOf ?? fine });
  input.inputMode = schema.type === "integer" ? "numeric" : "decimal";
  input.value = input.placeholder = String(schema.default ?? "");
  const read = () => {
    if (input.validity.badInput) return NaN;
    const value = input.value === "" ? undefined : numberOf(input.value);
    return value === schema.default ? undefined : value;
  };
  return { element: input, target: input, read, write: (value) => (input.value = String(value)) };
}

function makeSeed(id, schema) {
  const highest = Math.min(schema.maximum ?? Infinity, 2 ** 32 - 1);
  const lowest = schema.minimum ?? 0;
  const input = make("input", { id, type: "text", inputMode: "numeric", placeholder: "random", autocomplete: "off" });
  const write = (value) => {
    input.value = String(value);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const draw = () => write(lowest + Math.floor(Math.random() * (highest - lowest + 1)));
  const dice = make("button", { type: "button", className: "dice", title: "Draw a seed", "aria-label": "Draw a seed" });
  dice.addEventListener("click", draw);
  const read = () => (input.value.trim() === "" ? undefined : numberOf(input.value));
  return { element: make("div", { className: "joined" }, input, dice), target: input, read, write };
}

function numberOf(text) {
  const value = Number(text.trim() || NaN);
  return /^\s*-?\d+\s*$/.test(text) && !Number.isSafeInteger(value) ? BigInt(text.trim()) : value;
}

function makeChoice(id, schema, required) {
  const select = make("select", { id });
  if (schema.default === undefined) {
    select.append(make("option", { value: "" }, required ? "Choose…" : "As in the template"));
  }
  const options = schema.enum.map((choice, index) => make("option", { value: String(index) }, String(choice)));
  select.append(...options);
  const write = (value) => {
    const index = schema.enum.indexOf(value);
    select.value = index < 0 ? "" : String(index);
  };
  if (schema.default !== undefined) write(schema.default);
  const read = () => {
    const value = select.value === "" ? undefined : schema.enum[Number(select.value)];
    return value === schema.default ? undefined : value;
  };
  return { element: select, target: select, read, write };
}

function makeSwitch(id, schema, required) {
  const input = make("input", { id, type: "checkbox", checked: schema.default ?? false, role: "switch" });
  const kept = schema.default ?? (required ? undefined : false);
  const read = () => (input.checked === kept ? undefined : input.checked);
  return { element: input, target: input, read, write: (value) => (input.checked = value) };
}

/** A control for a file of a kind: image, video or audio. */
export function makeUpload(id, kind) {
  const input = make("input", { id, type: "file", accept: `${kind}/*`, className: "unseen" });
  const hint = make("span", { className: "hint" });
  const zone = make("label", { className: "drop", htmlFor: id }, input, hint);
  const remove = make("button", { type: "button", className: "quiet", hidden: true }, "Remove");
  const made = make("button", { type: "button", className: "quiet", hidden: true }, "Use the picture just made");
  let offered = null;
  let file = null;
  let url = null;

  const write = (chosen) => {
    if (url) URL.revokeObjectURL(url);
    file = chosen;
    url = file && URL.createObjectURL(file);
    zone.querySelector(".thumbnail")?.remove();
    if (file) zone.prepend(show(kind, url));
    hint.textContent = file ? `${file.name}, ${sizeOf(file.size)}` : `Drop ${article(kind)} here, or choose one`;
    remove.hidden = !file;
    made.hidden = !offered || file === offered;
    if (!file) input.value = "";
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  input.addEventListener("change", () => input.files.length && write(input.files[0]));
  remove.addEventListener("click", () => {
    write(null);
    input.focus();
  });
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) write(event.dataTransfer.files[0]);
  });
  made.addEventListener("click", () => {
    write(offered);
    input.focus();
  });
  const offer = (picture) => {
    offered = picture;
    made.hidden = !offered || file === offered;
  };
  write(null);
  const element = make("div", { className: "upload" }, zone, make("div", { className: "choices" }, made, remove));
  const close = () => url && URL.revokeObjectURL(url);
  return { element, target: input, wide: true, read: () => file ?? undefined, write, offer, close };
}

function article(kind) {
  return kind === "video" ? "a video" : kind === "audio" ? "a sound" : "a picture";
}

function show(kind, url) {
  const properties = { className: "thumbnail", src: url };
  if (kind === "image") return make("img", { ...properties, alt: "" });
  return make(kind, { ...properties, muted: true, controls: kind === "audio" });
}
