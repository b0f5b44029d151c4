
// The report of one run.
const MAX_ROWS = 60;  // of one chart
const chosen = { backend: "", workload: "", verdict: "" };
const VERDICTS = ["REGRESSION", "INVALID", "INCONCLUSIVE", "NO-BASELINE", "IMPROVEMENT", "PASS", "none"];

function items(test) {
  return DATA.items.filter((item) => ["backend", "workload", "verdict"].every((name) => !chosen[name] || item[name] === chosen[name]) && test(item));
}

function capped(id, all) {
  const note = document.querySelector(`[data-note="${id}"]`);
  if (note) note.textContent = all.length > MAX_ROWS ? `The first ${MAX_ROWS} of ${all.length}; choose an engine or a workload above for others. The table has all.` : "";
  return all.slice(0, MAX_ROWS);
}

const several = () => !chosen.workload;
// A phone truncates long labels at the end, so the workload comes first there.
for (const item of DATA.items) item.short = `${item.workload} ${item.case}`;
const y = () => ({ field: !several() ? "case" : narrow() ? "short" : "label", type: "nominal", sort: null, title: null });
const ticks = () => narrow() ? 3 : 6;
// In pixels: Vega-Lite warns about a step beside a width that follows the container.
const tall = (values, field) => Math.max(44, 22 * new Set(values.map((item) => item[field])).size);
const backends = [...new Set(DATA.items.map((item) => item.backend))];
const byBackend = { field: "backend", type: "nominal", title: null, scale: { domain: backends } };
const tip = (field, title, format) => ({ field, title, ...(format ? { type: "quantitative", format } : { type: "nominal" }) });
const named = [tip("case", "case"), tip("workload", "workload")];

function speeds(kind) {
  return () => {
    const values = capped(kind, items((item) => item.kind === kind && item.rate !== null));
    if (!values.length) return null;
    const tooltip = [...named, tip("rate", "tokens/s", ".5g"), tip("low", "from", ".5g"), tip("high", "to", ".5g")];
    const x = { type: "quantitative", scale: { type: "log", nice: true, padding: 8 }, title: "tokens per second, 95 % interval", axis: { tickCount: ticks(), format: "~s" } };
    return { data: { name: "figures", values }, height: tall(values, y().field), encoding: { y: y(), color: byBackend, tooltip }, layer: [
      { transform: [{ filter: "datum.high !== null" }], mark: { type: "rule", strokeWidth: 3, opacity: 0.55 }, encoding: { x: { ...x, field: "low" }, x2: { field: "high" } } },
      { mark: { type: "point", filled: true, size: 90, opacity: 1 }, encoding: { x: { ...x, field: "rate" } } } ] };
  };
}

function ratios() {
  const values = capped("ratio", items((item) => item.ratio !== null));
  if (!values.length) return null;
  const tolerance = values[0].tolerance, bad = colour("bad"), good = colour("good");
  const shades = { REGRESSION: bad, INVALID: bad, INCONCLUSIVE: colour("unsure"), IMPROVEMENT: good, PASS: good };
  // Clamp bounds that say nothing: they would squeeze all others into a line. The table has them in full.
  const limit = (field, extreme, start) => extreme(start, ...values.flatMap((item) => item[field] === null ? [] : [item[field]]));
  const ends = [Math.max(limit("ratio_low", Math.min, 1 / (1 + 2 * tolerance)), Math.min(0.25, limit("ratio", Math.min, 1))),
    Math.min(limit("ratio_high", Math.max, 1 + 2 * tolerance), Math.max(4, limit("ratio", Math.max, 1)))];
  const domain = VERDICTS.filter((verdict) => values.some((value) => value.verdict === verdict));
  const x = { type: "quantitative", scale: { type: "log", padding: 8, domain: ends, clamp: true }, title: "new ÷ old tokens per second, with bounds", axis: { format: ".2~f", tickCount: ticks() } };
  const margins = [{ at: 1 / (1 + tolerance) }, { at: 1 + tolerance }];
  const tooltip = [...named, tip("verdict", "verdict"), tip("ratio", "ratio", ".3f"), tip("ratio_low", "from", ".3f"), tip("ratio_high", "to", ".3f")];
  return { height: tall(values, y().field), layer: [
    { data: { values: margins }, mark: { type: "rule", strokeDash: [4, 4] }, encoding: { x: { ...x, field: "at" } } },
    { data: { values: [{ at: 1 }] }, mark: { type: "rule" }, encoding: { x: { ...x, field: "at" } } },
    { data: { name: "figures", values }, encoding: { y: y(), tooltip,
      color: { field: "verdict", type: "nominal", title: null, legend: { columns: narrow() ? 1 : 6 }, scale: { domain, range: domain.map((verdict) => shades[verdict] ?? colour("soft")) } } }, layer: [
      { transform: [{ filter: "datum.ratio_high !== null" }], mark: { type: "rule", strokeWidth: 3, opacity: 0.55 }, encoding: { x: { ...x, field: "ratio_low" }, x2: { field: "ratio_high" } } },
      { mark: { type: "point", filled: true, size: 90, opacity: 1 }, encoding: { x: { ...x, field: "ratio" } } } ] } ] };
}

function memory() {
  const values = items((item) => item.rate !== null && item.rss !== null);
  if (!values.length) return null;
  return { data: { name: "figures", values }, height: 320, mark: { type: "point", filled: true, size: 110, opacity: 0.85 }, encoding: {
    x: { field: "rss", type: "quantitative", title: "peak resident memory, MiB", scale: { zero: false, padding: 12 }, axis: { tickCount: ticks() } },
    y: { field: "rate", type: "quantitative", title: "tokens per second", scale: { type: "log", padding: 12 }, axis: { format: "~s", tickCount: 5 } },
    color: byBackend, shape: { field: "kind", type: "nominal", title: null, legend: { symbolFillColor: colour("soft"), symbolStrokeColor: colour("soft") } }, tooltip: [...named, tip("rss", "MiB", ".0f"), tip("rate", "tokens/s", ".5g")] } };
}

function parity() {
  const cases = new Map(items((item) => item.parity !== null && item.parity > 0).map((item) => [item.case, item]));
  const values = capped("parity", [...cases.values()]);
  if (!values.length) return null;
  const x = { type: "quantitative", scale: { type: "log", padding: 8 }, title: "relative L2 from the reference; the tick is the bound", axis: { format: ".0e", tickCount: ticks() } };
  const place = { field: "case", type: "nominal", sort: null, title: null };
  return { data: { name: "figures", values }, height: tall(values, "case"), encoding: { y: place, tooltip: [tip("case", "case"), tip("parity", "distance", ".1e"), tip("bound", "bound", ".1e")] }, layer: [
    { mark: { type: "tick", thickness: 3, color: colour("bad") }, encoding: { x: { ...x, field: "bound" } } },
    { mark: { type: "point", filled: true, size: 90, opacity: 1 }, encoding: { x: { ...x, field: "parity" }, color: byBackend } } ] };
}

// No legend: the text above explains the shapes, and a second legend does not fit a phone.
const form = { field: "kind", type: "nominal", title: null, scale: { domain: ["prefill", "generation"], range: ["circle", "triangle-up"] }, legend: null };

function roofline() {
  const values = capped("roofline", items((item) => item.share !== null && item.share > 0));
  if (!values.length) return null;
  const ceiling = [{ at: 1 }];
  const x = { type: "quantitative", scale: { type: "log", padding: 8, nice: false }, title: "share of the measured ceiling", axis: { format: "~%", tickCount: ticks() } };
  return { height: tall(values, y().field), layer: [
    { data: { values: ceiling }, mark: { type: "rule", strokeDash: [4, 4] }, encoding: { x: { ...x, field: "at" } } },
    { data: { name: "figures", values }, mark: { type: "point", filled: true, size: 90, opacity: 1 },
      encoding: { y: y(), x: { ...x, field: "share" }, color: byBackend, shape: form, tooltip: [...named, tip("share", "share", ".2~%"), tip("rate", "tokens/s", ".5g")] } } ] };
}

function energy() {
  const values = capped("energy", items((item) => item.joules !== null && item.joules > 0));
  if (!values.length) return null;
  const x = { type: "quantitative", scale: { type: "log", padding: 8, nice: false }, title: "joules per token", axis: { format: "~g", tickCount: ticks() } };
  const tooltip = [...named, tip("joules", "J/token", ".3g"), tip("net_joules", "beyond idling", ".3g")];
  return { data: { name: "figures", values }, height: tall(values, y().field), encoding: { y: y(), color: byBackend, tooltip }, layer: [
    { transform: [{ filter: "datum.net_joules > 0" }], mark: { type: "tick", thickness: 3, opacity: 1 }, encoding: { x: { ...x, field: "net_joules" } } },
    { mark: { type: "point", filled: true, size: 90, opacity: 1 }, encoding: { x: { ...x, field: "joules" }, shape: form } } ] };
}

function gpuMemory() {
  const cases = new Map(items((item) => item.gpu_mib !== null).map((item) => [item.case, item]));
  const values = capped("gpu-memory", [...cases.values()]);
  if (!values.length) return null;
  const x = { type: "quantitative", title: "MiB", axis: { tickCount: ticks(), format: ",d" } };
  const place = { field: "case", type: "nominal", sort: null, title: null };
  return { data: { name: "figures", values }, height: tall(values, "case"), encoding: { y: place, tooltip: [tip("case", "case"), tip("gpu_mib", "GPU MiB", ".0f"), tip("file_mib", "file MiB", ".0f")] }, layer: [
    { mark: { type: "bar", height: 12 }, encoding: { x: { ...x, field: "gpu_mib" }, color: byBackend } },
    { mark: { type: "tick", thickness: 3, color: colour("text") }, encoding: { x: { ...x, field: "file_mib" } } } ] };
}

function busy() {
  const values = capped("busy", items((item) => item.busy !== null || item.device !== null));
  if (!values.length) return null;
  const x = { type: "quantitative", scale: { domain: [0, 1], clamp: true }, title: "share of the time", axis: { format: ".0%", tickCount: ticks() } };
  const tooltip = [...named, tip("busy", "busy", ".0%"), ...(values.some((item) => item.device !== null) ? [tip("device", "device", ".0%")] : [])];
  return { data: { name: "figures", values }, height: tall(values, y().field), encoding: { y: y(), tooltip }, layer: [
    { mark: { type: "bar", height: 12 }, encoding: { x: { ...x, field: "busy" }, color: byBackend } },
    { transform: [{ filter: "datum.device !== null" }], mark: { type: "tick", thickness: 3, color: colour("text") }, encoding: { x: { ...x, field: "device" } } } ] };
}

const picker = document.getElementById("sample-item");

let parsed = null;  // read when the first chart of samples is drawn: they are most of a long run's page

function rows() {
  parsed ??= JSON.parse(document.getElementById("samples-data").textContent);
  const columns = parsed[Number(picker.value)];
  return columns.at.map((at, index) => ({ at, rate: columns.rate[index], process: columns.process[index], side: columns.side[index], probe: columns.probe[index] }));
}

const time = { field: "at", type: "quantitative", title: "seconds since the first sample", scale: { nice: false, padding: 8 }, axis: { tickMinStep: 1, tickCount: 8, labelExpr: "datum.value < 0 ? '' : datum.label" } };

function samples() {
  const values = rows(), item = DATA.items[Number(picker.value)];
  if (!values.length) return null;
  const sides = new Set(values.map((row) => row.side)).size > 1;
  const figure = { rate: item.rate, low: item.low, high: item.high ?? item.rate };
  const speed = { type: "quantitative", scale: { zero: false, padding: 8 }, title: "tokens per second", axis: { format: "~s" } };
  const point = { data: { name: "samples", values }, mark: { type: "point", filled: true, size: 60, opacity: 0.85 }, encoding: {
    x: time, y: { ...speed, field: "rate" }, color: sides ? { field: "side", type: "nominal", title: null } : { field: "process", type: "ordinal", title: "process", scale: { scheme: null, range: ["c1", "c2", "c3", "c4", "c5", "c6"].map(colour) } },
    tooltip: [tip("process", "process"), tip("side", "side"), tip("at", "second", ".2f"), tip("rate", "tokens/s", ".5g")] } };
  if (item.rate === null) return { height: 280, layer: [point] };
  return { height: 280, layer: [
    { data: { values: [figure] }, mark: { type: "rect", opacity: 0.13, color: colour("soft") }, encoding: { y: { ...speed, field: "low" }, y2: { field: "high" } } },
    { data: { values: [figure] }, mark: { type: "rule" }, encoding: { y: { ...speed, field: "rate" } } }, point ] };
}

function probes() {
  const values = rows().filter((row) => row.probe > 0);
  if (!values.length) return null;
  return { data: { name: "probes", values }, height: 140, mark: { type: "point", filled: true, size: 40, opacity: 0.85, color: colour("soft") }, encoding: {
    x: time, y: { field: "probe", type: "quantitative", title: "probe, ms", scale: { zero: false, padding: 8 } }, tooltip: [tip("at", "second", ".2f"), tip("probe", "ms", ".3f")] } };
}

function spread() {
  const values = rows();
  if (!values.length) return null;
  return { data: { name: "samples", values }, height: 160, mark: { type: "bar" }, encoding: {
    x: { field: "rate", type: "quantitative", bin: { maxbins: 30 }, title: "tokens per second", axis: { format: "~s" } }, y: { aggregate: "count", type: "quantitative", title: "samples" },
    color: { field: "side", type: "nominal", title: null, legend: new Set(values.map((row) => row.side)).size > 1 ? {} : null } } };
}

chart("speed-prefill", speeds("prefill"));
chart("speed-generation", speeds("generation"));
chart("ratio", ratios);
chart("memory", memory);
chart("roofline", roofline);
chart("energy", energy);
chart("gpu-memory", gpuMemory);
chart("busy", busy);
chart("parity", parity);
if (picker) {
  chart("samples", samples);
  chart("probes", probes);
  chart("spread", spread);
  picker.addEventListener("change", () => redraw(["samples", "probes", "spread"]));
}
for (const select of document.querySelectorAll("select[data-filter]")) select.addEventListener("change", () => {
  chosen[select.dataset.filter] = select.value;
  for (const row of document.querySelectorAll("tr[data-item]")) row.hidden = !items((item) => item.id === Number(row.dataset.item)).length;
  redraw(["speed-prefill", "speed-generation", "ratio", "memory", "roofline", "energy", "gpu-memory", "busy", "parity"]);
});
