// Small comforts that no page needs: copying, times in words, and a word when the connection is lost.
"use strict";

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

function inWords(milliseconds) {
  const age = Date.now() - milliseconds, length = Math.abs(age);
  if (length < 2 * SECOND) return "now";
  const [amount, unit] =
    length < MINUTE ? [length / SECOND, "s"] : length < HOUR ? [length / MINUTE, "min"]
    : length < 2 * DAY ? [length / HOUR, "h"] : [length / DAY, "days"];
  const text = Math.floor(amount) + " " + unit;
  return age > 0 ? text + " ago" : "in " + text;
}

function sayTimes() {
  for (const time of document.querySelectorAll("time[data-ms]")) {
    const milliseconds = Number(time.dataset.ms);
    if (!milliseconds) continue;
    const text = inWords(milliseconds);
    if (time.textContent !== text) time.textContent = text;
  }
}

function showLost(isLost) {
  document.getElementById("lost").hidden = !isLost;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button || !navigator.clipboard) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => {
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1200);
  });
});

// A summary of the try form keeps its place; the answer comes into view.
document.addEventListener("htmx:sse:after:connection", (event) => {
  if (event.target.id === "live") showLost(false);
  if (event.target.id === "try-form") document.getElementById("answer").scrollIntoView({ block: "nearest" });
});
document.addEventListener("htmx:sse:error", (event) => {
  if (event.target.id === "live") showLost(true);
});
document.addEventListener("htmx:after:swap", sayTimes);
document.addEventListener("DOMContentLoaded", () => {
  document.documentElement.classList.add("js");
  sayTimes();
  setInterval(sayTimes, SECOND);
});
