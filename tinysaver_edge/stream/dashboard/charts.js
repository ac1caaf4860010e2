// Two small charts of the last minutes.

import { frame, make, roundedUp } from "/drawing.js";

function minutes(stepSeconds, steps) {
  const all = steps * stepSeconds / 60;
  return Array.from({ length: Math.floor(all) + 1 }, (_, ago) =>
    ({ at: 1 - ago / all, words: ago === 0 ? "now" : `${ago} min` }));
}

function show(place, svg) {
  place.replaceChildren(svg);
}

// Counts a second, one on top of the other.
export function stacked(place, timeline, names) {
  const steps = timeline[names[0]].length;
  const sums = timeline[names[0]].map((_, step) => names.reduce((sum, name) => sum + timeline[name][step], 0));
  const { svg, inner, y } = frame(place, roundedUp(Math.max(...sums)), minutes(timeline.step_s, steps));
  const wide = (inner.right - inner.left) / steps;
  for (let step = 0; step < steps; step++) {
    let below = 0;
    for (const name of names) {
      const value = timeline[name][step];
      if (value > 0) {
        svg.append(make("rect", {
          class: name, x: (inner.left + step * wide).toFixed(2), width: (wide * 0.86).toFixed(2),
          y: y(below + value).toFixed(2), height: (y(below) - y(below + value)).toFixed(2),
        }));
      }
      below += value;
    }
  }
  show(place, svg);
}

// Lines with gaps where there is nothing.
export function lines(place, timeline, series) {
  const all = series.flatMap(({ values }) => values).filter(value => value !== null);
  const steps = series[0].values.length;
  const { svg, inner, y } = frame(place, roundedUp(Math.max(0, ...all)), minutes(timeline.step_s, steps));
  const wide = (inner.right - inner.left) / steps;
  for (const { values, name } of series) {
    let path = "", gap = true;
    values.forEach((value, step) => {
      if (value === null) { gap = true; return; }
      const x = inner.left + (step + 0.5) * wide;
      path += gap ? `M${x.toFixed(1)} ${y(value).toFixed(1)}h0.01` : `L${x.toFixed(1)} ${y(value).toFixed(1)}`;
      gap = false;
    });
    if (path) svg.append(make("path", { class: name, d: path }));
  }
  show(place, svg);
}
