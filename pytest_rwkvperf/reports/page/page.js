"use strict";
// Comfort only: the page is complete without it. Tables sort by a click on a heading; long pages get a filter.
const number = (text) => parseFloat(text.replace(/[\s,]/g, ""));

for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  head.setAttribute("aria-sort", "none");
  button.addEventListener("click", () => {
    const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const numeric = head.classList.contains("n");
    const value = (row) => { const text = row.cells[column].textContent.trim(); return numeric ? number(text) : text; };
    const empty = (key) => key === "" || Number.isNaN(key);
    const compare = (a, b) => empty(a) || empty(b) ? empty(a) - empty(b) : direction * (numeric ? a - b : a.localeCompare(b));
    body.append(...[...body.rows].sort((one, other) => compare(value(one), value(other))));
  });
}

const filter = document.querySelector(".filter"), lines = document.querySelectorAll(".rows > li");
if (filter && lines.length > 12) {
  filter.hidden = false;
  const input = filter.querySelector("input"), told = filter.querySelector("[role=status]");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const one of document.querySelectorAll("[data-text]")) one.hidden = !words.every((word) => one.dataset.text.toLowerCase().includes(word));
    for (const group of document.querySelectorAll(".group")) group.hidden = !group.querySelector("[data-text]:not([hidden])");
    if (words.length) for (const rest of document.querySelectorAll(".rest")) rest.open = true;
    const left = [...lines].filter((line) => !line.hidden).length;
    told.textContent = words.length ? `${left} of ${lines.length} shown` : "";
  });
}
