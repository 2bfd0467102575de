// What all plots of the page share: scales, axes, colours, and what stands beside the pointer.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

function make(name, attributes = {}, ...children) {
  const node = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// Numbers count from 1.
function colour(number) {
  return `var(--c${(number - 1) % 7})`;
}

function dash(number) {
  return DASHES[Math.floor((number - 1) / 7) % DASHES.length];
}

function swatch(number) {
  const line = make("svg:line", { x1: 1, x2: 21, y1: 6, y2: 6, style: `stroke:${colour(number)};stroke-width:3`, "stroke-dasharray": dash(number) });
  return make("svg:svg", { class: "swatch", width: 22, height: 12, "aria-hidden": "true" }, line);
}

function dots(points, x, y, number) {
  return points.filter(([at, value]) => x.has(at) && value !== null && y.has(value))
    .map(([at, value]) => make("svg:circle", { cx: x(at), cy: y(value), r: 3, style: `fill:${colour(number)}` }));
}

function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}

// A text of a plot, cut where it has no room; the whole of it shows under the pointer.
function label(text, room, attributes) {
  const letters = Math.max(3, Math.floor(room / 7)), whole = String(text);
  const node = make("svg:text", attributes, whole.length > letters ? `${whole.slice(0, letters - 1)}…` : whole);
  if (whole.length > letters) node.append(make("svg:title", {}, whole));
  return node;
}

// A linear or logarithmic scale from numbers to pixels, with round ticks; `room` is the share left free at both ends.
function scale(values, from, to, log, room = 0) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) [low, high] = log ? [1, 10] : [0, 1];
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
  const shape = log ? Math.log : (value) => value;
  const free = room * (shape(high) - shape(low)), [start, end] = [shape(low) - free, shape(high) + free];
  const place = (value) => from + ((shape(value) - start) / (end - start)) * (to - from);
  place.ticks = log ? logTicks(low, high) : linearTicks(low, high, Math.abs(to - from) / 70);
  place.has = (value) => Number.isFinite(value) && (!log || value > 0);
  return place;
}

function linearTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(2, wanted), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of high / low > 1000 ? [1] : high / low > 30 ? [1, 3] : [1, 2, 3, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(Number(tick.toPrecision(6)));
    }
  }
  return ticks;
}

// The width of a drawing in a plot, in pixels of the screen, so that its texts have the size of other texts.
function drawnWidth(plot) {
  return Math.max(280, plot.clientWidth - 14);
}

// An empty plot with both axes; x and y are scales, names their titles.
function frame(width, height, edges, x, y, names) {
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${names.y} over ${names.x}` });
  for (const tick of y.ticks) {
    const at = y(tick);
    svg.append(make("svg:line", { class: "grid", x1: edges.left, x2: width - edges.right, y1: at, y2: at }));
    svg.append(make("svg:text", { x: edges.left - 6, y: at + 4, "text-anchor": "end" }, short(tick)));
  }
  const isCrowded = tooClose(12);
  for (const tick of names.ticks ?? x.ticks) {
    const text = names.texts?.get(tick) ?? short(tick), room = 2 * Math.min(x(tick), width - x(tick));
    if (isCrowded(x(tick), Math.min(text.length * 7, room))) continue;
    svg.append(label(text, room, { x: x(tick), y: height - edges.bottom + 16, "text-anchor": "middle" }));
  }
  const base = height - edges.bottom;
  svg.append(make("svg:line", { class: "axis", x1: edges.left, x2: width - edges.right, y1: base, y2: base }));
  const middle = (edges.left + width - edges.right) / 2;
  svg.append(label(names.x, width - edges.left, { class: "title", x: middle, y: height - 4, "text-anchor": "middle" }));
  svg.append(label(names.y, width - edges.left, { class: "title", x: edges.left - 40, y: 12 }));
  return svg;
}

// Whether a text of some width would touch one that is there already; remembers those that do not.
function tooClose(gap) {
  const taken = [];
  return (at, size) => {
    if (taken.some(([other, width]) => Math.abs(other - at) < (size + width) / 2 + gap)) return true;
    taken.push([at, size]);
    return false;
  };
}

function path(points, x, y) {
  let text = "", isDown = false;
  for (const [at, value] of points) {
    const isThere = x.has(at) && value !== null && y.has(value);
    if (isThere) text += `${isDown ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    isDown = isThere;
  }
  return text;
}

// Shows `lines` beside the pointer, inside of the plot.
function tip(plot, event, lines) {
  let box = plot.querySelector(".tip");
  if (!lines) return box?.remove();
  if (!box) plot.append((box = make("div", { class: "tip" })));
  box.replaceChildren(...lines.map((line) => make("div", {}, line)));
  const frameBox = plot.getBoundingClientRect();
  const left = Math.min(event.clientX - frameBox.left + 14, frameBox.width - box.offsetWidth - 4);
  box.style.left = `${Math.max(4, left)}px`;
  box.style.top = `${Math.max(4, event.clientY - frameBox.top - box.offsetHeight - 10)}px`;
}

// Mean over a symmetric window that shrinks at both ends, so that a falling curve is not seen late.
function smooth(points, share) {
  const reach = Math.round((points.length * share) / 200);
  if (reach < 1) return points;
  return points.map(([at], index) => {
    const side = Math.min(reach, index, points.length - 1 - index);
    const near = points.slice(index - side, index + side + 1).map(([, value]) => value).filter(Number.isFinite);
    return [at, near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : null];
  });
}
