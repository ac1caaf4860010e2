// Two small charts, drawn as SVG anew each time.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 22;

function make(name, attributes, ...children) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  one.append(...children);
  return one;
}

// The next of 1, 2, 5, 10, 20, … that is not below a value.
export function roundedUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map(one => one * power).find(one => one >= value * 0.999);
}

function frame(place, highest, stepSeconds, steps) {
  const width = Math.max(260, Math.round(place.clientWidth)), height = width < 600 ? 150 : 180;
  const inner = { left: LEFT, right: width - RIGHT, top: TOP, bottom: height - BOTTOM };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const y = value => inner.bottom - (inner.bottom - inner.top) * value / highest;
  for (const part of [0, 0.5, 1]) {
    const value = highest * part;
    svg.append(
      make("line", { class: "grid", x1: inner.left, x2: inner.right, y1: y(value), y2: y(value) }),
      make("text", { x: inner.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(+value.toPrecision(3))));
  }
  const minutes = steps * stepSeconds / 60;
  for (let ago = 0; ago <= minutes; ago++) {
    const x = inner.right - (inner.right - inner.left) * ago / minutes;
    const anchor = ago === 0 ? "end" : ago >= minutes ? "start" : "middle";
    svg.append(make("text", { x, y: height - 5, "text-anchor": anchor }, ago === 0 ? "now" : `${ago} min`));
  }
  return { svg, inner, y };
}

function show(place, svg) {
  place.replaceChildren(svg);
}

// Counts a second, one on top of the other.
export function stacked(place, timeline, names) {
  const steps = timeline[names[0]].length;
  const sums = timeline[names[0]].map((_, step) => names.reduce((sum, name) => sum + timeline[name][step], 0));
  const { svg, inner, y } = frame(place, roundedUp(Math.max(...sums)), timeline.step_s, steps);
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
  const { svg, inner, y } = frame(place, roundedUp(Math.max(0, ...all)), timeline.step_s, steps);
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
