// A line that falls as questions are answered, and where it should get to.

import { frame, make } from "/drawing.js";

// The next round number that is not below a value.
function highestOf(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map(one => one * power).find(one => one >= value * 0.999);
}

// `curve` has points {asked, cost, bound}; null where there is none yet.
export function falling(place, curve, { of, total, goal, words }) {
  const points = curve.filter(one => one[of] !== null);
  const highest = highestOf(Math.max(goal ?? 0, ...points.map(one => one[of]), 0.01));
  const whole = Math.max(1, total);
  const { svg, inner, y } = frame(place, highest, [
    { at: 0, words: "0" }, { at: 1, words: `${total} questions` }], 118);
  svg.setAttribute("aria-label", words);
  const x = answered => inner.left + (inner.right - inner.left) * Math.min(1, answered / whole);
  if (goal !== undefined)
    svg.append(make("line", { class: "goal", x1: inner.left, x2: inner.right, y1: y(goal), y2: y(goal) }));
  if (points.length) {
    let path = `M${x(points[0].asked).toFixed(1)} ${y(points[0][of]).toFixed(1)}`;
    for (const one of points.slice(1)) path += `H${x(one.asked).toFixed(1)}V${y(one[of]).toFixed(1)}`;
    const last = points[points.length - 1];
    svg.append(make("path", { class: of, d: path }),
      make("circle", { class: of, cx: x(last.asked).toFixed(1), cy: y(last[of]).toFixed(1), r: 4 }));
  }
  place.replaceChildren(svg);
}
