// A mask, painted with a brush over the picture that it belongs to: white where one has painted, black elsewhere.
//
// For: inputs that are a mask beside a picture. Whoever can't paint, or has a mask already, uploads one in its place.

import { makeUpload } from "./controls.js";
import { blobOf, make } from "./dom.js";

const BRUSH = 0.08; // of the picture's longer side
const LARGEST = 2048; // pixels of a mask's longer side
const COLOR = "#4356c6"; // while one paints: white could not be seen on white

/** A control as in `controls.js`; `follow(file)` gives it the picture to paint on, or null. */
export function makeMask(id) {
  const upload = makeUpload(id, "image");
  const picture = make("img", { alt: "" });
  const canvas = make("canvas", { role: "img", "aria-label": "The picture, to paint on" });
  const clear = make("button", { type: "button", className: "quiet" }, "Clear");
  const save = make("button", { type: "button", className: "quiet" }, "Save the mask");
  const tools = make("div", { className: "choices", hidden: true }, clear, save);
  const hint = make("p", { className: "hint" }, "Paint what is to be drawn anew, or give a mask below.");
  const easel = make("div", { className: "easel", hidden: true }, hint, make("div", {}, picture, canvas), tools);
  const element = make("div", { className: "mask" }, easel, upload.element);
  const brush = canvas.getContext("2d");
  let last = null; // where the brush was

  const wipe = () => {
    brush.clearRect(0, 0, canvas.width, canvas.height);
    tools.hidden = true;
  };
  const stroke = (event) => {
    const scale = canvas.width / canvas.clientWidth;
    const point = { x: event.offsetX * scale, y: event.offsetY * scale };
    brush.beginPath();
    brush.moveTo((last ?? point).x, (last ?? point).y);
    brush.lineTo(point.x, point.y);
    brush.stroke();
    last = point;
  };
  picture.addEventListener("load", () => {
    const scale = Math.min(1, LARGEST / Math.max(picture.naturalWidth, picture.naturalHeight));
    canvas.width = Math.round(picture.naturalWidth * scale);
    canvas.height = Math.round(picture.naturalHeight * scale);
    const lineWidth = BRUSH * Math.max(canvas.width, canvas.height);
    Object.assign(brush, { lineWidth, lineCap: "round", strokeStyle: COLOR });
    wipe();
  });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    upload.write(null);
    stroke(event);
    tools.hidden = false;
  });
  canvas.addEventListener("pointermove", (event) => last && stroke(event));
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (last = null));
  clear.addEventListener("click", () => {
    wipe();
    upload.target.focus();
  });
  save.addEventListener("click", () => {
    const url = URL.createObjectURL(print(canvas));
    make("a", { href: url, download: "mask.png" }).click();
    URL.revokeObjectURL(url);
  });
  for (const kind of ["change", "drop"]) upload.element.addEventListener(kind, wipe);
  picture.addEventListener("error", () => (easel.hidden = true));

  const follow = (file) => {
    if (picture.src) URL.revokeObjectURL(picture.src);
    easel.hidden = !file;
    wipe();
    if (file) picture.src = URL.createObjectURL(file);
    else picture.removeAttribute("src");
  };
  const read = () => (tools.hidden ? upload.read() : print(canvas));
  const close = () => {
    follow(null);
    upload.close();
  };
  return { element, target: upload.target, wide: true, read, write: upload.write, offer: () => {}, close, follow };
}

/** The mask as a file. */
function print(canvas) {
  const paper = make("canvas", { width: canvas.width, height: canvas.height });
  const pen = paper.getContext("2d");
  pen.drawImage(canvas, 0, 0);
  for (const [where, color] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
    pen.globalCompositeOperation = where;
    pen.fillStyle = color;
    pen.fillRect(0, 0, paper.width, paper.height);
  }
  return new File([blobOf(paper.toDataURL("image/png").split(",")[1], "image/png")], "mask.png", { type: "image/png" });
}
