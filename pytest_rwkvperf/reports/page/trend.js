
// Trends of a history.
const tip = (field, title, format) => ({ field, title, ...(format ? { type: "quantitative", format } : { type: "nominal" }) });

function trend(series) {
  return () => {
    const x = { type: "quantitative", title: "run", scale: { domain: [0.5, series.points.length + 0.5], nice: false }, axis: { tickMinStep: 1, tickCount: narrow() ? 4 : 10, format: "d" } };
    const y = { type: "quantitative", title: "tokens per second, 95 % interval", scale: { zero: false, padding: 10 }, axis: { format: "~s" } };
    const tooltip = [tip("run", "run"), tip("id", "id"), tip("started", "started"), tip("commit", "commit"), tip("rate", "tokens/s", ".5g"), tip("low", "from", ".5g"), tip("high", "to", ".5g")];
    return { height: 260, layer: [
      { data: { values: series.turns }, mark: { type: "rule", color: colour("bad"), strokeDash: [5, 4] }, encoding: { x: { ...x, field: "at" } } },
      { data: { values: series.levels }, mark: { type: "rule", strokeWidth: 2, color: colour("soft") }, encoding: { x: { ...x, field: "from" }, x2: { field: "to" }, y: { ...y, field: "rate" } } },
      { data: { name: "points", values: series.points }, encoding: { x: { ...x, field: "run" }, tooltip }, layer: [
        { transform: [{ filter: "datum.high !== null" }], mark: { type: "rule", opacity: 0.45, color: colour("c1"), strokeWidth: 2 }, encoding: { y: { ...y, field: "low" }, y2: { field: "high" } } },
        { mark: { type: "point", filled: true, size: 70, opacity: 1, color: colour("c1") }, encoding: { y: { ...y, field: "rate" } } } ] } ] };
  };
}

DATA.forEach((series, index) => chart(`trend-${index}`, trend(series)));
