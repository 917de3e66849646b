// When a request may be sent again: counted down where it is read, and said aloud once, when the time has come.
//
// Leaves to others: where it stands, and how it is said. Invariant: one wait at a time is counted.

import { make } from "./dom.js";

let timer = 0;

/** A line that counts `seconds` down; `tell` is told what it says at the end. The wait before it is forgotten. */
export function countDown(seconds, tell) {
  forgetWait();
  const end = Date.now() + seconds * 1000; // a timer is late in a tab that nobody looks at
  const line = make("p", { className: "wait", role: "timer", "aria-live": "off" }, inSeconds(seconds));
  timer = setInterval(() => {
    const left = Math.ceil((end - Date.now()) / 1000);
    line.textContent = left > 0 ? inSeconds(left) : "You may try again now.";
    if (left > 0) return;
    forgetWait();
    tell(line.textContent);
  }, 1000);
  return line;
}

/** Count no more. */
export function forgetWait() {
  clearInterval(timer);
}

function inSeconds(seconds) {
  return `Try again in ${seconds} s.`;
}
