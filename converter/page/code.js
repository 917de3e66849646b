// The request that was sent, as a shell command and as a Python program that send the same. Pure.
//
// A request is `{ home, template, inputs, keyed, output }`: the address before `/v1`; the template's name; values and
// files by name; whether a key goes with it, which stays out of the text; the one output that came, or null.

/** The JSON body; files are named as parts. */
export function bodyOf(inputs) {
  return `{"inputs": {${pairs(inputs, json)}}}`;
}

/** The files among the inputs. */
export function filesOf(inputs) {
  return [...inputs].filter(([, value]) => value instanceof File);
}

/** The request for a shell, by curl. */
export function curlOf({ home, template, inputs, keyed, output }) {
  const files = filesOf(inputs);
  const lines = [`curl -sS ${shell(`${home}/v1/workflows/${template}`)}`];
  if (!files.length) lines.push("-H 'Content-Type: application/json'");
  if (keyed) lines.push('-H "Authorization: Bearer $CONVERTER_API_KEY"');
  if (output) lines.push(`-H ${shell(`Accept: ${output.content_type.split(";")[0]}`)}`);
  if (files.length) {
    lines.push(`--form-string ${shell(`request=${bodyOf(inputs)}`)}`);
    for (const [name, file] of files) lines.push(`-F ${shell(`${name}=@"${file.name.replaceAll(/["\\]/g, "\\$&")}"`)}`);
  } else {
    lines.push(`-d ${shell(bodyOf(inputs))}`);
  }
  lines.push(`--fail-with-body -o ${shell(output ? output.name : "result.json")}`);
  return lines.join(" \\\n  ");
}

/** The request for Python, by the converter's own client. */
export function pythonOf({ home, template, inputs, keyed }) {
  const files = filesOf(inputs);
  const call = `Template(${JSON.stringify(template)}, {${pairs(inputs, python)}})`;
  const parts = files.map(([name, file]) => `${JSON.stringify(name)}: Path(${JSON.stringify(file.name)})`);
  const key = keyed ? ', api_key=os.environ["CONVERTER_API_KEY"]' : "";
  return [
    ...(keyed ? ["import os"] : []),
    "from pathlib import Path",
    "",
    "from converter.client import SyncClient, Template",
    "",
    `with SyncClient(${JSON.stringify(home)}${key}) as client:`,
    `    result = client.run(${call}${parts.length ? `, files={${parts.join(", ")}}` : ""})`,
    "    for output in result.outputs:",
    "        output.save(Path(output.name).name)",
  ].join("\n");
}

function pairs(inputs, write) {
  return [...inputs].map(([name, value]) => `${JSON.stringify(name)}: ${write(value, name)}`).join(", ");
}

function json(value, name) {
  if (value instanceof File) return `{"part": ${JSON.stringify(name)}}`;
  return typeof value === "bigint" ? String(value) : JSON.stringify(value);
}

function python(value, name) {
  return typeof value === "boolean" ? (value ? "True" : "False") : json(value, name);
}

function shell(text) {
  return /^[\w./:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
