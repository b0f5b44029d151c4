"use strict";
// What every page's charts share: colours of the theme, drawing when seen, and drawing again when the theme changes.

const DATA = JSON.parse(document.getElementById("data").textContent);
const charts = new Map();  // element -> function that gives its specification, or null when there is nothing to draw

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
  // The interpreter instead of generated functions: the page's policy forbids code from strings.
  const made = await vegaEmbed(element, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", config: theme(), ...spec },
    { actions: false, logLevel: 1, renderer: "svg", ast: true, tooltip: { theme: "custom" } });
  element.view = made.view;
  element.dataset.drawn = "yes";
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "400px" });

function chart(id, spec) {
  const element = document.getElementById(id);
  if (element === null) return;
  charts.set(element, spec);
  seen.observe(element);
}

function redraw(ids) {
  for (const element of charts.keys())
    if (ids === undefined || ids.includes(element.id)) { seen.unobserve(element); delete element.dataset.drawn; seen.observe(element); }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("beforeprint", () => { for (const element of charts.keys()) if (!element.dataset.drawn) draw(element); });

for (const head of document.querySelectorAll("th[aria-sort] button")) head.addEventListener("click", () => {
  const cell = head.parentElement, table = cell.closest("table"), column = [...cell.parentElement.children].indexOf(cell);
  const way = cell.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  cell.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
  const value = (row) => { const own = row.children[column]; return own.dataset.value !== undefined ? (own.dataset.value === "" ? Infinity * way : Number(own.dataset.value)) : own.textContent.trim(); };
  const compare = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b);
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => way * compare(value(a), value(b))));
});
