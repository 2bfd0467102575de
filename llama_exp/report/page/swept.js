// The figure over each key: a dot a run, a bar from end to end of the interval of each mean, a line where only this key
// differs.
"use strict";

function drawSwept(place, page) {
  if (!page.effects.length) return place.append(make("p", { class: "faint" }, "The runs differ in no key but the seed."));
  const several = make("div", { class: "several" });
  place.append(several);
  for (const effect of page.effects) several.append(effectPlot(effect, page));
}

function effectPlot(effect, page) {
  const width = 480, height = 300, edges = { left: 62, right: 18, top: 22, bottom: 40 };
  const points = effect.lines.flatMap((line) => line.points);
  const values = points.flatMap((point) => [point.low, point.high, point.mean, ...point.runs.map((run) => run.value)]);
  const y = scale(values.filter((value) => value !== null), height - edges.bottom, edges.top, false, 0.05);
  const x = effectScale(effect, points, edges.left + 34, width - edges.right - 34);
  const names = { x: effect.label, y: page.figure.label, ticks: x.places, texts: x.texts };
  const svg = frame(width, height, edges, x, y, names), plot = make("div", { class: "plot" }, svg);
  effect.lines.forEach((line, index) => {
    const aside = (index - (effect.lines.length - 1) / 2) * Math.min(9, 40 / effect.lines.length);
    drawEffectLine(svg, plot, effect, line, index + 1, (point) => x(point.at) + aside, y);
  });
  if (effect.lines.length < 2) return plot;
  const legend = make("div", { class: "legend" });
  effect.lines.forEach((line, index) => legend.append(make("span", {}, swatch(index + 1), line.label)));
  plot.append(legend);
  return plot;
}

function effectScale(effect, points, from, to) {
  if (effect.scale === "categories") {
    const place = (text) => (effect.ticks.length === 1 ? (from + to) / 2
      : from + (effect.ticks.indexOf(text) / (effect.ticks.length - 1)) * (to - from));
    place.places = effect.ticks;
    place.has = () => true;
    return place;
  }
  const place = scale(points.map((point) => point.at), from, to, effect.scale === "log");
  const texts = new Map(points.map((point) => [point.at, point.text]));
  place.places = [...texts.keys()];
  place.texts = texts;
  return place;
}

function drawEffectLine(svg, plot, effect, line, number, at, y) {
  const style = `stroke:${colour(number)}`;
  const means = line.points.filter((point) => point.mean !== null);
  const d = means.map((point, index) => `${index ? "L" : "M"}${at(point).toFixed(1)} ${y(point.mean).toFixed(1)}`).join("");
  svg.append(make("svg:path", { class: "curve", d, style, "stroke-dasharray": dash(number) }));
  for (const point of line.points) {
    if (point.low !== null) {
      svg.append(make("svg:line", { class: "spread", x1: at(point), x2: at(point), y1: y(point.low), y2: y(point.high), style }));
    }
    for (const run of point.runs.filter((one) => one.value !== null)) {
      const circle = make("svg:circle", { cx: at(point), cy: y(run.value), r: 3.6, style: `fill:${colour(number)};fill-opacity:0.55` });
      circle.addEventListener("pointerenter", (event) => tip(plot, event, [run.name, `${effect.label}=${point.text}: ${short(run.value)}`]));
      circle.addEventListener("pointerleave", () => tip(plot));
      svg.append(circle);
    }
  }
}
