// Learning curves: one line a run, coloured by group; which figure, axes, smoothing and runs are chosen on the page.
"use strict";

function drawCurves(place, page) {
  const names = [...new Set(page.runs.flatMap((run) => Object.keys(run.curves)))];
  if (!names.length) return place.append(make("p", { class: "faint" }, "No run has rows of metrics yet."));
  const first = names.includes("validation.loss") ? "validation.loss" : names[0];
  const state = { figure: first, logX: false, logY: false, smoothing: 0, hidden: new Set() };
  const plot = make("div", { class: "plot" }), legend = make("div", { class: "legend" });
  const redraw = () => drawCurvePlot(plot, page, state);
  place.append(curveControls(names, state, redraw), plot, legend);
  for (const group of page.groups.filter((one) => page.runs.some((run) => run.group === one.number))) {
    legend.append(toggle(group.label, group.number, state.hidden, redraw));
  }
  redraw();
  new ResizeObserver(() => { if (Math.abs(drawnWidth(plot) - plot.widthThen) > 1) redraw(); }).observe(place);
}

function curveControls(names, state, redraw) {
  const figure = make("select", { onchange: (event) => { state.figure = event.target.value; redraw(); } });
  for (const name of names) figure.append(make("option", { value: name, selected: name === state.figure }, name));
  const box = (text, key) => make("label", {},
    make("input", { type: "checkbox", onchange: (event) => { state[key] = event.target.checked; redraw(); } }), text);
  const slider = make("input", { type: "range", min: 0, max: 60, value: 0, "aria-label": "smoothing",
    oninput: (event) => { state.smoothing = Number(event.target.value); redraw(); } });
  return make("div", { class: "controls" }, make("label", {}, "figure", figure), box("log steps", "logX"),
    box("log values", "logY"), make("label", {}, "smoothing", slider));
}

function toggle(text, number, hidden, redraw) {
  const button = make("button", { type: "button", "aria-pressed": "true", title: text, onclick: () => {
    hidden.has(number) ? hidden.delete(number) : hidden.add(number);
    button.setAttribute("aria-pressed", String(!hidden.has(number)));
    redraw();
  } });
  button.append(swatch(number), text);
  return button;
}

function drawCurvePlot(plot, page, state) {
  const width = drawnWidth(plot), height = width < 500 ? 300 : 420;
  const edges = { left: 62, right: 14, top: 22, bottom: 40 };
  const shown = page.runs.filter((run) => run.curves[state.figure]?.length && !state.hidden.has(run.group));
  const lines = shown.map((run) => {
    const raw = run.curves[state.figure];
    return { run, raw, points: smooth(raw, state.smoothing) };
  });
  const x = scale(lines.flatMap((line) => line.points.map(([at]) => at)), edges.left, width - edges.right, state.logX);
  const y = scale(lines.flatMap((line) => line.points.map(([, value]) => value)), height - edges.bottom, edges.top, state.logY, 0.04);
  const svg = frame(width, height, edges, x, y, { x: "optimizer step", y: state.figure });
  for (const line of lines) {
    const style = `stroke:${colour(line.run.group)}`;
    if (state.smoothing) svg.append(make("svg:path", { class: "curve raw", d: path(line.raw, x, y), style }));
    line.node = make("svg:path", { class: "curve", d: path(line.points, x, y), style, "stroke-dasharray": dash(line.run.group) });
    svg.append(line.node);
    if (line.points.length < 12) svg.append(...dots(line.points, x, y, line.run.group));
  }
  svg.addEventListener("pointermove", (event) => showNearest(plot, svg, event, lines, x, y));
  svg.addEventListener("pointerleave", () => { tip(plot); lines.forEach((line) => line.node.classList.remove("dim")); });
  plot.replaceChildren(svg);
  plot.widthThen = width;
}

function showNearest(plot, svg, event, lines, x, y) {
  const box = svg.getBoundingClientRect(), factor = svg.viewBox.baseVal.width / box.width;
  const at = [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
  let best = null;
  for (const line of lines) {
    for (const [step, value] of line.points) {
      if (!x.has(step) || value === null || !y.has(value)) continue;
      const distance = Math.hypot(x(step) - at[0], y(value) - at[1]);
      if (!best || distance < best.distance) best = { distance, line, step, value };
    }
  }
  if (!best || best.distance > 60) return tip(plot);
  lines.forEach((line) => line.node.classList.toggle("dim", line !== best.line));
  tip(plot, event, [best.line.run.name, `step ${short(best.step)}: ${short(best.value)}`]);
}
