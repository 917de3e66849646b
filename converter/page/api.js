// Calls to the converter: the key, faults, and events as they come.
//
// Leaves to others: where the key is asked for (`key.js`), and what is shown. Invariant: the key goes to the converter
// that this page came from, and into this tab's session storage, and nowhere else.

import { ask, forget, known } from "./key.js";

/** A fault: the problem document (RFC 9457) that the converter answered, or one of ours in the same shape. */
export class Fault extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }
}

/** The address of the converter, as it is written before `/v1`. */
export const HOME = new URL(".", document.baseURI).href.replace(/\/$/, "");

/** One request; the answer if it is no fault. A key is asked for where one is needed, unless `quiet`. */
export async function call(path, { quiet = false, ...options } = {}) {
  for (;;) {
    const key = known();
    const headers = new Headers(options.headers);
    if (key) headers.set("Authorization", `Bearer ${key}`);
    const response = await reach(`${HOME}/${path}`, { cache: "no-store", ...options, headers });
    if (response.ok) return response;
    const problem = await read(response);
    if (response.status !== 401 || quiet) throw new Fault(problem);
    if (key && key === known()) forget();
    if (!(await ask(Boolean(key)))) throw new Fault(problem);
  }
}

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault({ title: "Not reached", detail: "The converter can't be reached. Does it still run?" });
  }
}

async function read(response) {
  const problem = await response.json().catch(() => null);
  if (problem !== null && typeof problem === "object") return problem;
  return { title: "Unexpected answer", detail: `Something that is no converter has answered ${response.status}.` };
}

/** The events of a stream: `{ event, data }`, the data parsed. Raises a fault where the stream breaks off. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let line = []; // pieces, since the last event is one line as long as all outputs
  let event = "";
  let data = "";
  for (;;) {
    const { value, done } = await next(reader);
    if (done) return;
    const [first, ...others] = value.split("\n");
    line.push(first);
    for (const begun of others) {
      const text = line.join("");
      line = [begun];
      if (text.startsWith("event: ")) event = text.slice(7);
      else if (text.startsWith("data: ")) data = text.slice(6);
      else if (text === "" && data) {
        yield { event, data: JSON.parse(data) };
        data = "";
      }
    }
  }
}

async function next(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { done: true };
  }
}
