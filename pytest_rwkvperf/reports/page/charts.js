"use strict";
// Shared by every page: colours of the theme, charts drawn when scrolled into view and redrawn when the theme changes.

const DATA = JSON.parse(document.getElementById("data").textContent);
const charts = new Map();  // element -> function that returns its specification, or null if there is nothing to draw

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

const narrow = () => innerWidth < 640;

function theme() {
  const text = colour("text"), soft = colour("soft"), line = colour("line");
  return {
    background: "transparent", font: "system-ui, sans-serif",
    axis: { labelColor: text, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, labelFontSize: narrow() ? 11 : 13, titleFontSize: narrow() ? 11 : 13, labelLimit: narrow() ? 140 : 320, titleFontWeight: "normal" },
    legend: { labelColor: text, titleColor: soft, labelFontSize: 13, titleFontSize: 13, orient: "top", titleFontWeight: "normal", columns: narrow() ? 2 : 6 },
    view: { stroke: line }, range: { category: ["c1", "c2", "c3", "c4", "c5", "c6"].map(colour) },
    mark: { tooltip: true }, rule: { color: soft },
  };
}

async function draw(element) {
  const spec = charts.get(element)();
  element.view?.finalize();
  element.view = null;
  element.replaceChildren();
  if (spec === null) { element.textContent = "Nothing to show."; element.dataset.drawn = "empty"; return; }
  // `ast: true` interprets expressions: the page's policy forbids functions made from strings.
  const embedded = await vegaEmbed(element, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", config: theme(), ...spec },
    { actions: false, logLevel: 1, renderer: "svg", ast: true, tooltip: { theme: "custom" } });
  element.view = embedded.view;
  element.dataset.drawn = "yes";
}

const visibility = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { visibility.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "400px" });

function chart(id, spec) {
  const element = document.getElementById(id);
  if (element === null) return;
  charts.set(element, spec);
  visibility.observe(element);
}

function redraw(ids) {
  for (const element of charts.keys())
    if (ids === undefined || ids.includes(element.id)) { visibility.unobserve(element); delete element.dataset.drawn; visibility.observe(element); }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("beforeprint", () => { for (const element of charts.keys()) if (!element.dataset.drawn) draw(element); });

for (const head of document.querySelectorAll("th[aria-sort] button")) head.addEventListener("click", () => {
  const cell = head.parentElement, table = cell.closest("table"), column = [...cell.parentElement.children].indexOf(cell);
  const direction = cell.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  cell.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const value = (row) => {
    const { dataset, textContent } = row.children[column];
    if (dataset.value === undefined) return textContent.trim();
    return dataset.value === "" ? Infinity * direction : Number(dataset.value);
  };
  const compare = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b);
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => direction * compare(value(a), value(b))));
});
