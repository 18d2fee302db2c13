// Charts over the points of the stream, and bars.

/** A number to three digits. */
const short = (x) => (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(1) : +x.toPrecision(3));

/** An element of SVG with attributes and children. */
function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const [LEFT, RIGHT, TOP, BOTTOM] = [62, 10, 12, 42];
const marks = {
  circle: (x, y) => draw("circle", { cx: x, cy: y, r: 4 }),
  square: (x, y) => draw("rect", { x: x - 3.5, y: y - 3.5, width: 7, height: 7 }),
  ring: (x, y) => draw("circle", { cx: x, cy: y, r: 3.5, "fill-opacity": 0, "stroke-width": 2 }),
  none: () => draw("g"),
};

/** Round numbers that cover low..high, and the function from a number to a share of the axis. */
function scaleOf(values, log) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high) + 1e-9)];
    const all = [];
    for (let k = first; k <= last; k++) all.push(...(last - first < 3 ? [1, 2, 5] : [1]).map((m) => m * 10 ** k));
    const from = all.findLastIndex((tick) => tick <= low);
    const to = all.findIndex((tick) => tick >= high);
    const ticks = all.slice(Math.max(0, from), to < 0 ? all.length : to + 1);
    const [a, b] = [Math.log10(ticks[0]), Math.log10(ticks.at(-1))];
    return { ticks, share: (value) => (b > a ? (Math.log10(value) - a) / (b - a) : 0.5) };
  }
  [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  if (low === high) high = 1;
  const raw = (high - low) / 5;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((size) => size >= raw);
  const ticks = [];
  for (let k = Math.floor(low / step); k <= Math.ceil(high / step); k++) ticks.push(k * step);
  return { ticks, share: (value) => (value - ticks[0]) / (ticks.at(-1) - ticks[0]) };
}

/**
 * series: {values [2 n_layer + 1], name(p), kind: colour, mark, line: whether neighbours are joined}; a value that is
 * null is left out. others: values of other tokens, thin lines. offset: the first place of layer 0.
 */
function chart(box, { n_layer, series, others = [], log, label, axis, offset, height = 300 }) {
  const n_points = 2 * n_layer + 1;
  const floor = 1e-6; // a variance of 0 has no logarithm
  const clean = (value) => (value === null ? null : log ? Math.max(value, floor) : value);
  const values = [...series.flatMap((one) => one.values), ...others.flat()].map(clean).filter((v) => v !== null);
  const { ticks, share } = scaleOf(values, log);
  const width = Math.max(box.clientWidth, LEFT + RIGHT + 9 * n_points);
  const half = (width - LEFT - RIGHT) / n_points / 2;
  const x = (p) => LEFT + (2 * p + 1) * half;
  const y = (value) => height - BOTTOM - share(clean(value)) * (height - BOTTOM - TOP);
  const svg = draw("svg", { width, height, role: "img", "aria-label": label });
  const every = Math.ceil(20 / (4 * half));
  for (let layer = 0; layer < n_layer; layer++) {
    const left = x(2 * layer + offset) - half;
    if (layer % 2 === 0)
      svg.append(draw("rect", { class: "band", x: left, y: TOP, width: 4 * half, height: height - BOTTOM - TOP }));
    if (layer % every === 0)
      svg.append(draw("text", { x: left + 2 * half, y: height - BOTTOM + 17, "text-anchor": "middle" }, String(layer)));
  }
  const [end, name] = offset === 0 ? [n_points - 1, "ln_f"] : [0, "emb."]; // the place that belongs to no layer
  svg.append(draw("text", { x: x(end) + half, y: height - BOTTOM + 17, "text-anchor": "end" }, name));
  for (const tick of ticks) {
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, String(short(tick))));
  }
  svg.append(draw("text", { x: (LEFT + width) / 2, y: height - 6, "text-anchor": "middle" }, axis));
  const upright = `translate(13 ${(height - BOTTOM + TOP) / 2}) rotate(-90)`;
  svg.append(draw("text", { transform: upright, "text-anchor": "middle" }, label));
  const path = (line) => "M" + line.map((value, p) => `${x(p).toFixed(1)},${y(value).toFixed(1)}`).join("L");
  for (const line of others) svg.append(draw("path", { class: "other", d: path(line) }));
  for (const { values: points, name, kind, mark, line } of series) {
    if (line) svg.append(draw("path", { class: `line ${kind}`, d: path(points) }));
    points.forEach((value, p) => {
      if (value === null) return;
      const title = draw("title", {}, `${name(p)}: ${short(value)}`);
      svg.append(draw("g", { class: kind }, title, marks[mark](x(p), y(value))));
    });
  }
  box.replaceChildren(svg);
}

function legend(box, entries) {
  box.replaceChildren(...entries.map(([kind, mark, line, text]) => {
    const sample = draw("svg", { width: 26, height: 12, "aria-hidden": "true" });
    if (line) sample.append(draw("path", { class: `line ${kind}`, d: "M1,6L25,6" }));
    sample.append(draw("g", { class: kind }, marks[mark](13, 6)));
    return make("span", {}, sample, text);
  }));
}

/** Rows of (label, share); marked rows stand out. */
function showBars(box, rows) {
  const cells = rows.flatMap(([label, p, marked]) => {
    const bar = make("i");
    bar.style.width = `${100 * p}%`;
    return [make("span", { className: marked ? "real" : "" }, ...label), make("b", {}, percent(p)), bar];
  });
  box.replaceChildren(...cells);
}

/** Rows of (label, number) with bars to both sides of a middle line. */
function showSigned(box, rows) {
  const largest = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  const cells = rows.flatMap(([label, value]) => {
    const bar = make("i", { className: value < 0 ? "less" : "" });
    bar.style.width = `${(50 * Math.abs(value)) / largest}%`;
    bar.style.marginLeft = `${value < 0 ? 50 - (50 * Math.abs(value)) / largest : 50}%`;
    return [make("span", {}, ...label), make("b", {}, signed(value)), bar];
  });
  box.replaceChildren(...cells);
}

/** A column for each number, above and below a line; titles(i) says what it is. */
function columns(box, values, title, label, height = 120) {
  const width = Math.max(box.clientWidth, 4 * values.length);
  const step = width / values.length;
  const largest = Math.max(...values.map(Math.abs), 1e-9);
  const svg = draw("svg", { width, height, role: "img", "aria-label": label });
  svg.append(draw("line", { class: "grid", x1: 0, x2: width, y1: height / 2, y2: height / 2 }));
  values.forEach((value, i) => {
    const size = (Math.abs(value) / largest) * (height / 2 - 2);
    const place = { x: i * step + 0.1 * step, width: 0.8 * step, y: height / 2 - (value > 0 ? size : 0), height: size };
    svg.append(draw("rect", { ...place, class: value < 0 ? "orange" : "blue" }, draw("title", {}, title(i))));
  });
  box.replaceChildren(svg);
}

/** Rows of (label, number from 0 on) with bars beside them. */
function showAmounts(box, rows) {
  const largest = Math.max(...rows.map(([, value]) => value), 1e-9);
  const cells = rows.flatMap(([label, value]) => {
    const bar = make("i");
    bar.style.width = `${(100 * value) / largest}%`;
    return [make("span", {}, ...label), make("b", {}, String(short(value))), bar];
  });
  box.replaceChildren(...cells);
}
