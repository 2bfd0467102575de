// Each claim: points and fit, and below them the interval beside the expected range, open ends as arrows.
"use strict";

function drawClaims(page) {
  for (const place of document.querySelectorAll("[data-claim]")) {
    const claim = page.claims[Number(place.dataset.claim)];
    if (claim) place.append(make("div", { class: "plot" }, claimPoints(claim), claimStrip(claim)), claimLegend(claim));
  }
}

function claimPoints(claim) {
  const width = 560, height = 300, edges = { left: 62, right: 18, top: 22, bottom: 40 };
  const all = claim.series.flatMap((series) => [...series.points, ...series.line]);
  const x = scale(all.map(([at]) => at), edges.left + 12, width - edges.right - 12, claim.logX);
  const y = scale(all.map(([, value]) => value), height - edges.bottom, edges.top, claim.logY, 0.05);
  // Between two powers there may be no round number.
  const heights = all.map(([, value]) => value);
  if (y.ticks.length < 2) y.ticks = linearTicks(Math.min(...heights), Math.max(...heights), 4);
  if (!claim.logX) x.ticks = x.ticks.filter(Number.isInteger);
  const svg = frame(width, height, edges, x, y, { x: claim.x, y: claim.y });
  claim.series.forEach((series, index) => {
    const style = `stroke:${colour(index + 1)}`;
    svg.append(make("svg:path", { class: "curve", d: path(series.line, x, y), style }));
    svg.append(...dots(series.points, x, y, index + 1));
    if (series.marked === null || !x.has(series.marked)) return;
    const at = x(series.marked);
    svg.append(make("svg:line", { x1: at, x2: at, y1: edges.top, y2: height - edges.bottom, style, "stroke-dasharray": "2 3" }));
  });
  return svg;
}

function claimStrip(claim) {
  const width = 560, height = 74, left = 62, right = width - 18, middle = 22;
  const known = [...claim.expected, ...claim.interval, claim.value, claim.published].filter((value) => value !== null);
  const x = scale(known, left + 40, right - 40, false);
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `interval and expected range, ${claim.unit}` });
  const [from, to] = claim.expected.map((end, index) => (end === null ? [left, right][index] : x(end)));
  svg.append(make("svg:rect", { class: "expected", x: from, width: Math.max(2, to - from), y: 6, height: 32 }));
  const ends = claim.interval.map((end, index) => (end === null ? [left, right][index] : x(end)));
  svg.append(make("svg:line", { class: "obtained", x1: ends[0], x2: ends[1], y1: middle, y2: middle }));
  claim.interval.forEach((end, index) => {
    const text = { x: ends[index], y: middle + 5, class: "open", "text-anchor": index ? "end" : "start" };
    if (end === null) svg.append(make("svg:text", text, index ? "▸" : "◂"));
  });
  svg.append(make("svg:circle", { class: "obtained", cx: x(claim.value), cy: middle, r: 5 }));
  if (claim.published !== null) {
    svg.append(make("svg:line", { class: "published", x1: x(claim.published), x2: x(claim.published), y1: 2, y2: 42 }));
  }
  const step = x.ticks.length > 1 ? x.ticks[1] - x.ticks[0] : 1;
  for (const tick of x.ticks) {
    const text = short(Math.abs(tick) < step * 1e-6 ? 0 : tick);
    svg.append(make("svg:text", { x: x(tick), y: 56, "text-anchor": "middle" }, text));
  }
  svg.append(make("svg:text", { class: "title", x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, claim.unit));
  return svg;
}

function claimLegend(claim) {
  const legend = make("div", { class: "legend" });
  claim.series.forEach((series, index) => series.label && legend.append(make("span", {}, swatch(index + 1), series.label)));
  legend.append(make("span", {}, make("i", { class: "expected" }), "expected"));
  if (claim.published !== null) legend.append(make("span", {}, make("i", { class: "published" }), "published"));
  return legend;
}

drawClaims(JSON.parse(document.getElementById("data").textContent));
