// What a run has made: outputs to look at and to keep, what took the time, and the request as code.

import { curlOf, pythonOf } from "./code.js";
import { blobOf, make, sizeOf } from "./dom.js";
import { offerPicture, writeInput } from "./form.js";

const at = (id) => document.getElementById(id);
const [outputs, summary, timings, copy] = ["outputs", "summary", "timings", "copy"].map(at);
const tabs = [at("tab-curl"), at("tab-python")];
const panels = [at("panel-curl"), at("panel-python")];

const PARTS = {
  waiting: "waiting",
  staging: "inputs",
  queued: "engine's queue",
  executing: "engine",
  collecting: "outputs",
};

let urls = [];

/** Show a result document; `request` is as in `code.js`, without output; `drawn` names the seeds among its inputs. */
export function showResult(result, request, drawn) {
  for (const url of urls) URL.revokeObjectURL(url);
  urls = [];
  outputs.replaceChildren(...result.outputs.map(showOutput));
  summarize(result, drawn);
  timings.replaceChildren(...showTimings(result.timings));
  const files = result.outputs.filter((output) => output.data !== undefined);
  const output = result.outputs.length === 1 && files.length === 1 ? files[0] : null;
  panels[0].textContent = curlOf({ ...request, output });
  panels[1].textContent = pythonOf(request);
}

function showOutput(output) {
  const called = output.label ? `${output.label}: ${output.name}` : output.name;
  if (output.text !== undefined) {
    return make("figure", {}, make("pre", { tabIndex: 0 }, output.text), make("figcaption", {}, called));
  }
  let url = output.url;
  if (output.data !== undefined) {
    const blob = blobOf(output.data, output.content_type);
    url = URL.createObjectURL(blob);
    urls.push(url);
    if (output.kind === "image") offerPicture(new File([blob], output.name, { type: blob.type }));
  }
  const facts = make("span", { className: "facts" }, `${called}, ${sizeOf(output.size)}`);
  const save = make("a", { className: "button", href: url, download: output.name }, "Download");
  const caption = make("figcaption", {}, facts, save);
  if (output.warning) caption.append(make("p", { className: "help" }, output.warning));
  return make("figure", {}, showMedium(output, url, facts), caption);
}

function showMedium({ kind, name, content_type: type }, url, facts) {
  if (type.startsWith("image/")) {
    const picture = make("img", { src: url, alt: name });
    picture.addEventListener("load", () => facts.append(`, ${picture.naturalWidth} × ${picture.naturalHeight}`));
    return make("div", { className: "frame" }, picture);
  }
  if (type.startsWith("video/")) return make("video", { src: url, controls: true, loop: true });
  if (type.startsWith("audio/")) return make("audio", { src: url, controls: true });
  return make("p", { className: "help" }, `This is a file of the kind ${kind}, which can't be shown here.`);
}

function summarize({ timings: { total }, inputs }, drawn) {
  summary.replaceChildren(`Done in ${secondsOf(total)}.`);
  for (const name of drawn) {
    const keep = make("button", { type: "button", className: "quiet" }, "Use it again");
    keep.addEventListener("click", () => writeInput(name, inputs[name]));
    summary.append(` The ${name} was ${inputs[name]}. `, keep);
  }
}

function showTimings(times) {
  const bar = make("div", { className: "bar", "aria-hidden": "true" });
  const list = make("dl");
  for (const [part, name] of Object.entries(PARTS)) {
    const seconds = times[part] ?? 0;
    if (seconds < 0.0005) continue;
    const share = make("span", { className: part });
    share.style.flexGrow = seconds;
    bar.append(share);
    list.append(make("div", { className: part }, make("dt", {}, name), make("dd", {}, secondsOf(seconds))));
  }
  return [bar, list];
}

function secondsOf(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

// Tabs (WAI-ARIA: tabs with automatic activation) ---------------------------------------------------------------------

function choose(index) {
  tabs.forEach((tab, each) => {
    tab.setAttribute("aria-selected", String(each === index));
    tab.tabIndex = each === index ? 0 : -1;
    panels[each].hidden = each !== index;
  });
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => choose(index));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    const other = (index + 1) % tabs.length;
    choose(other);
    tabs[other].focus();
  });
});

copy.addEventListener("click", async () => {
  const panel = panels.find((each) => !each.hidden);
  try {
    await navigator.clipboard.writeText(panel.textContent);
    copy.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(panel); // no clipboard without HTTPS: marked, it takes one key
    copy.textContent = "Marked";
  }
  setTimeout(() => (copy.textContent = "Copy"), 2000);
});

choose(0);
