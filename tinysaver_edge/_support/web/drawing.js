// What charts are drawn with: SVG, made anew each time.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 22;

export function make(name, attributes, ...children) {
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

// Two axes: values from 0 to the highest, and marks along the foot, each at a part 0..1 of the width.
export function frame(place, highest, marks, high = null) {
  const width = Math.max(260, Math.round(place.clientWidth)), height = high ?? (width < 600 ? 150 : 180);
  const inner = { left: LEFT, right: width - RIGHT, top: TOP, bottom: height - BOTTOM };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const y = value => inner.bottom - (inner.bottom - inner.top) * value / highest;
  for (const part of [0, 0.5, 1]) {
    const value = highest * part;
    svg.append(
      make("line", { class: "grid", x1: inner.left, x2: inner.right, y1: y(value), y2: y(value) }),
      make("text", { x: inner.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(+value.toPrecision(3))));
  }
  for (const { at, words } of marks) {
    const x = inner.left + (inner.right - inner.left) * at;
    const anchor = at >= 1 ? "end" : at <= 0 ? "start" : "middle";
    svg.append(make("text", { x, y: height - 5, "text-anchor": anchor }, words));
  }
  return { svg, inner, y };
}
