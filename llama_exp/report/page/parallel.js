// Parallel coordinates: an axis for each key and one for the figure, good values on top; a line a run. Drag along an axis
// to choose runs.
"use strict";

function drawParallel(place, page) {
  const coordinates = page.coordinates;
  if (!coordinates) return place.append(make("p", { class: "faint" }, "Needs two keys that differ, and two runs with a value."));
  const plot = make("div", { class: "plot" });
  place.append(make("p", { class: "faint" }, "One line a run, in the colour of its config; the best values are on top. Drag along an axis to choose runs, click it to let all in again."), plot);
  const width = Math.max(drawnWidth(plot), coordinates.axes.length * 90), height = 380, top = 46, bottom = height - 24;
  const pixel = (share) => bottom - share * (bottom - top), side = width < 600 ? 44 : 80;
  const axes = coordinates.axes.map((axis, index, all) => ({
    ...axis, at: side + (index / (all.length - 1)) * (width - 2 * side), range: null,
    anchor: index === 0 ? "start" : index === all.length - 1 ? "end" : "middle",
    side, room: (width - 2 * side) / (all.length - 1),
    titleAt: width < 600 && index % 2 ? 30 : 16,
  }));
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "parallel coordinates" });
  const lines = coordinates.lines.map((line) => ({ ...line, heights: line.positions.map((share) => (share === null ? null : pixel(share))) }));
  for (const line of lines) svg.append((line.node = parallelLine(line, axes, plot)));
  axes.forEach((axis) => drawParallelAxis(svg, axis, pixel, top, bottom, () => choose(lines, axes)));
  plot.append(svg);
}

function parallelLine(line, axes, plot) {
  const points = line.heights.map((height, index) => [axes[index].at, height]).filter(([, height]) => height !== null);
  const d = points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const node = make("svg:path", { class: "curve", d, style: `stroke:${colour(line.group)}`, "stroke-dasharray": dash(line.group) });
  node.addEventListener("pointerenter", (event) => tip(plot, event, [line.name, short(line.value)]));
  node.addEventListener("pointerleave", () => tip(plot));
  return node;
}

function drawParallelAxis(svg, axis, pixel, top, bottom, changed) {
  svg.append(make("svg:line", { class: "axis", x1: axis.at, x2: axis.at, y1: top, y2: bottom }));
  const edge = { start: 0, middle: axis.at, end: svg.viewBox.baseVal.width }[axis.anchor];
  svg.append(label(axis.label, axis.room * 1.8, { class: "title", x: edge, y: axis.titleAt, "text-anchor": axis.anchor }));
  const isCrowded = tooClose(0);
  for (const [share, text] of axis.ticks) {
    if (isCrowded(pixel(share), 13)) continue;
    const isLast = axis.anchor === "end";
    const place = { x: axis.at + (isLast ? 8 : -8), y: pixel(share) + 4, "text-anchor": isLast ? "start" : "end" };
    svg.append(label(text, axis.anchor === "middle" ? axis.room - 12 : axis.side - 8, { class: "tick", ...place }));
  }
  const chosen = make("svg:rect", { x: axis.at - 8, width: 16, y: top, height: 0, style: "fill:var(--c2);fill-opacity:0.3" });
  const handle = make("svg:rect", { x: axis.at - 14, width: 28, y: top - 6, height: bottom - top + 12, style: "fill:transparent;cursor:crosshair;touch-action:none" });
  svg.append(chosen, handle);
  followDrag(svg, handle, top, bottom, (range) => {
    axis.range = range;
    chosen.setAttribute("y", range ? range[0] : top);
    chosen.setAttribute("height", range ? range[1] - range[0] : 0);
    changed();
  });
}

// Calls `show` with the stretch that is being dragged, or with null after a click.
function followDrag(svg, handle, top, bottom, show) {
  let from = null;
  const height = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.max(top, Math.min(bottom, ((event.clientY - box.top) * svg.viewBox.baseVal.height) / box.height));
  };
  handle.addEventListener("pointerdown", (event) => {
    from = height(event);
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    if (from !== null) show([Math.min(from, height(event)), Math.max(from, height(event))]);
  });
  handle.addEventListener("pointerup", (event) => {
    if (Math.abs(height(event) - from) < 4) show(null);
    from = null;
  });
}

function choose(lines, axes) {
  for (const line of lines) {
    const isIn = axes.every(({ range }, index) => {
      const height = line.heights[index];
      return !range || (height !== null && height >= range[0] - 1 && height <= range[1] + 1);
    });
    line.node.classList.toggle("dim", !isIn);
  }
}
