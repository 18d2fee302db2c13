"use strict";

// n tokens; the stream has 2 n_layer + 1 places: the embedding, then after each attention and each feed-forward layer.
const data = JSON.parse(document.getElementById("trace").textContent);
const { ids, n_layer, n_head } = data;
const n = ids.length;
const n_places = 2 * n_layer + 1;
const triangle = (n * (n + 1)) / 2;
const weights = Uint8Array.from(atob(data.attention), (c) => c.charCodeAt(0)); // [n_layer, n_head, triangle], 255: all
const state = { chosen: n - 1, shown: n - 1, layer: 0, head: 0 };

const get = (id) => document.getElementById(id);
const weight = (layer, head, i, j) =>
  j > i ? 0 : weights[(layer * n_head + head) * triangle + (i * (i + 1)) / 2 + j] / 255;
const percent = (p) => (p >= 0.1 ? (100 * p).toFixed(0) : p >= 0.001 ? (100 * p).toFixed(1) : "< 0.1") + " %";

/** A token's text with whatever is invisible made visible. */
function visible(id) {
  const text = data.texts[id] || "∅";
  return text
    .replaceAll(" ", "·")
    .replaceAll("\n", "⏎")
    .replaceAll("\t", "⇥")
    .replace(/[\0-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replaceAll("\x7f", "␡");
}

/** An element with properties and children; children that are strings become text, never markup. */
function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const token = (id) => make("span", { className: "token" }, visible(id));

/** Arrow keys, Home and End move among the buttons of a group that has so many columns; only one takes part in Tab. */
function steer(group, columns, choose) {
  group.addEventListener("keydown", (event) => {
    const buttons = [...group.querySelectorAll("button")];
    const at = buttons.indexOf(event.target);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const to = { Home: 0, End: buttons.length - 1 }[event.key] ?? at + step[event.key];
    if (at < 0 || !(to in buttons)) return;
    event.preventDefault();
    choose(to);
    buttons[to].focus();
  });
}

function check(group, at) {
  [...group.querySelectorAll("button")].forEach((button, i) => {
    button.setAttribute("aria-checked", i === at);
    button.tabIndex = i === at ? 0 : -1;
  });
}

// --- Colours: from the style sheet, so that both schemes work -----------------------------------------------------

function colour(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** From the panel's colour for 0 to blue for 1; the root lifts small shares, which would not be seen. */
function shade() {
  const [low, high] = [colour("--panel"), colour("--blue")];
  return (p) => low.map((c, i) => Math.round(c + (high[i] - c) * Math.sqrt(p)));
}

// --- Attention ----------------------------------------------------------------------------------------------------

/** A head in a small canvas of at most 64 x 64 cells, each the largest share among those that it stands for. */
function drawSmall(canvas, layer, head, shadeOf) {
  const block = Math.ceil(n / 64);
  const size = Math.ceil(n / block);
  canvas.width = canvas.height = size;
  const largest = new Float32Array(size * size);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      const cell = Math.floor(i / block) * size + Math.floor(j / block);
      largest[cell] = Math.max(largest[cell], weight(layer, head, i, j));
    }
  const image = new ImageData(size, size);
  largest.forEach((p, cell) => image.data.set([...shadeOf(p), 255], 4 * cell));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function drawHeads() {
  const shadeOf = shade();
  get("heads").querySelectorAll("canvas").forEach((canvas, i) =>
    drawSmall(canvas, Math.floor(i / n_head), i % n_head, shadeOf));
}

function makeHeads() {
  const grid = get("heads");
  grid.style.gridTemplateColumns = `max-content repeat(${n_head}, minmax(1.4rem, 4.5rem))`;
  grid.append(make("span"), ...Array.from({ length: n_head }, (_, head) => make("span", {}, String(head))));
  for (let layer = 0; layer < n_layer; layer++) {
    grid.append(make("span", {}, String(layer)));
    for (let head = 0; head < n_head; head++) {
      const label = `layer ${layer}, head ${head}`;
      const button = make("button", { role: "radio", title: label, "aria-label": label }, make("canvas"));
      button.addEventListener("click", () => chooseHead(layer * n_head + head));
      grid.append(button);
    }
  }
  steer(grid, n_head, chooseHead);
  drawHeads();
}

function chooseHead(at) {
  [state.layer, state.head] = [Math.floor(at / n_head), at % n_head];
  check(get("heads"), at);
  get("head-name").textContent = `Layer ${state.layer}, head ${state.head}`;
  showHead();
}

const [LABEL, MARGIN] = [92, 6]; // pixels for the tokens at the left and above, and at the other two sides
const cut = (text) => (text.length > 10 ? text.slice(0, 9) + "…" : text);
const cellSize = () => (get("head").clientWidth - LABEL - MARGIN) / n;

/** The chosen head, large, with tokens at both axes; the shown token's row is framed. */
function drawLarge() {
  const canvas = get("head");
  const [width, ratio, size] = [canvas.clientWidth, window.devicePixelRatio || 1, cellSize()];
  canvas.width = canvas.height = width * ratio;
  canvas.setAttribute("aria-label", `Attention of layer ${state.layer}, head ${state.head}; in words below`);
  const context = canvas.getContext("2d");
  const css = getComputedStyle(document.documentElement);
  const shadeOf = shade();
  context.scale(ratio, ratio);
  context.translate(LABEL, LABEL);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      context.fillStyle = `rgb(${shadeOf(weight(state.layer, state.head, i, j))})`;
      context.fillRect(j * size, i * size, size > 6 ? size - 1 : size + 0.3, size > 6 ? size - 1 : size + 0.3);
    }
  context.font = '12px ui-monospace, "DejaVu Sans Mono", monospace';
  context.textBaseline = "middle";
  const every = Math.ceil(15 / size);
  for (let i = 0; i < n; i++) {
    if (i % every && i !== state.shown) continue;
    if (i !== state.shown && Math.abs(i - state.shown) < every) continue; // makes room
    context.fillStyle = css.getPropertyValue(i === state.shown ? "--ink" : "--muted");
    context.textAlign = "right";
    context.fillText(cut(visible(ids[i])), -6, (i + 0.5) * size);
    context.save();
    context.translate((i + 0.5) * size, -6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(cut(visible(ids[i])), 0, 0);
    context.restore();
  }
  context.strokeStyle = css.getPropertyValue("--orange");
  context.lineWidth = 2;
  context.strokeRect(-1, state.shown * size - 1, (state.shown + 1) * size + 1, size + 1);
}

function showHead() {
  drawLarge();
  const i = state.shown;
  const shares = ids.slice(0, i + 1).map((id, j) => [id, weight(state.layer, state.head, i, j), j]);
  shares.sort((a, b) => b[1] - a[1]);
  get("looks-title").replaceChildren("In this head, ", token(ids[i]), ` (${i}) takes most from`);
  showBars(get("looks"), shares.slice(0, 6).map(([id, p, j]) => [[token(id), ` (${j})`], p]));
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

/** Which row and column of the large head lie under the pointer. */
function cellAt(event) {
  const box = get("head").getBoundingClientRect();
  const place = (offset) => Math.floor((offset - LABEL) / cellSize());
  return [place(event.clientY - box.top), place(event.clientX - box.left)];
}

function makeLarge() {
  get("head").addEventListener("pointermove", (event) => {
    const [i, j] = cellAt(event);
    const inside = i >= 0 && j >= 0 && i < n && j <= i;
    const words = () => ` (${i}) takes ${percent(weight(state.layer, state.head, i, j))} from `;
    get("head-cell").replaceChildren(
      ...(inside ? [token(ids[i]), words(), token(ids[j]), ` (${j})`] : ["Point at a cell to read it."]));
  });
  get("head").addEventListener("click", (event) => {
    const [i] = cellAt(event);
    if (i >= 0 && i < n) choose(i);
  });
}

// --- The stream and its LayerNorms --------------------------------------------------------------------------------

function placeName(p) {
  if (p === 0) return "embedding";
  return `layer ${Math.floor((p - 1) / 2)}, ${p % 2 ? "attention" : "feed-forward"}`;
}

function normName(p) {
  return p === n_places - 1 ? "ln_f" : `layer ${Math.floor(p / 2)}, ${p % 2 ? "ln_2" : "ln_1"}`;
}

const column = (rows, i) => rows.map((row) => row[i]);

function showStream() {
  const i = state.shown;
  const added = column(data.added, i);
  const half = (odd) => added.map((value, p) => (p > 0 && p % 2 === odd ? value : null));
  const name = (p) => `added by ${placeName(p)}`;
  const after = (p) => `stream after ${placeName(p)}`;
  chart(get("stream-chart"), {
    n_layer,
    series: [
      { values: column(data.norms, i), name: after, kind: "ink", mark: "none", line: true },
      { values: half(1), name, kind: "blue", mark: "circle" },
      { values: half(0), name, kind: "orange", mark: "square" },
    ],
    others: ids.map((_, j) => column(data.norms, j)).filter((_, j) => j !== i),
    log: true,
    label: "Euclidean norm (no unit; logarithmic)",
    axis: "layer: attention, feed-forward",
    offset: 1,
    height: 340,
  });
}

function showNorms() {
  const i = state.shown;
  for (const [id, name, log, label] of [
    ["mean-chart", "mean", false, "mean over channels"],
    ["variance-chart", "variance", true, "variance over channels (log.)"],
  ]) {
    const series = (when, kind, mark) => {
      const values = column(data[`${name}_${when}`], i);
      return { values, name: (p) => `${name} ${when} ${normName(p)}`, kind, mark, line: true };
    };
    chart(get(id), {
      n_layer,
      series: [series("before", "ink", "circle"), series("after", "blue", "ring")],
      log,
      label,
      axis: "layer: ln_1, ln_2",
      offset: 0,
    });
  }
  const names = ["norms", "added", "mean_before", "variance_before", "mean_after", "variance_after"];
  const head = ["stream after", "its norm", "norm added", "read by"];
  head.push("mean before", "variance before", "mean after", "variance after");
  get("numbers").replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...data.norms.map((_, p) => {
      const cells = names.map((name) => make("td", {}, String(short(data[name][p][i]))));
      cells.splice(2, 0, make("td", {}, normName(p)));
      return make("tr", {}, make("th", { scope: "row" }, placeName(p)), ...cells);
    })),
  );
}

// --- Logit lens and next token ------------------------------------------------------------------------------------

const depthName = (depth) => (depth === 0 ? "embedding" : `layer ${depth - 1}`);
const fill = (p) => `color-mix(in srgb, var(--blue) ${Math.round(50 * p)}%, var(--panel))`;

function makeLens() {
  const heads = ids.map((id, i) => make("th", { scope: "col" }, token(id)));
  const rows = data.lens_ids.map((row, depth) =>
    make("tr", {}, make("th", { scope: "row" }, depthName(depth)), ...row.map((likeliest, i) => {
      const p = data.lens_probabilities[depth][i];
      const title = likeliest.slice(0, 5).map((id, k) => `${visible(id)} ${percent(p[k])}`).join("\n");
      const cell = make("td", { title }, token(likeliest[0]));
      cell.style.background = fill(p[0]);
      return cell;
    })));
  const real = ids.map((_, i) => (i + 1 < n ? make("td", {}, token(ids[i + 1])) : make("td", {}, "?")));
  get("lens").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", {}, "after"), ...heads)),
    make("tbody", {}, ...rows),
    make("tfoot", {}, make("tr", {}, make("th", { scope: "row" }, "in the text"), ...real)),
  );
  get("lens").addEventListener("click", (event) => {
    const cell = event.target.closest("td, thead th");
    if (cell && cell.cellIndex > 0) choose(cell.cellIndex - 1);
  });
}

function showLens() {
  const i = state.shown;
  for (const row of get("lens").rows)
    [...row.cells].forEach((cell, at) => cell.classList.toggle("shown", at === i + 1));
  const [box, row] = [get("lens").parentElement, get("lens").rows[0]];
  const [own, names, all] = [row.cells[i + 1], row.cells[0], box].map((element) => element.getBoundingClientRect());
  if (own.left < names.right) box.scrollLeft -= names.right - own.left; // into view
  else if (own.right > all.right) box.scrollLeft += own.right - all.right;
  get("candidates-title").replaceChildren("The five likeliest after ", token(ids[i]), ` (${i}), layer by layer`);
  get("candidates").replaceChildren(make("tbody", {}, ...data.lens_ids.map((row, depth) => {
    const cells = row[i].slice(0, 5).map((id, k) => {
      const p = data.lens_probabilities[depth][i][k];
      const cell = make("td", {}, token(id), " ", make("small", {}, percent(p)));
      cell.style.background = fill(p);
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row" }, depthName(depth)), ...cells);
  })));
}

function showNext() {
  const i = state.shown;
  const real = i + 1 < n ? [", where the text goes on with ", token(ids[i + 1])] : [", where the text ends"];
  get("next-of").replaceChildren("Likeliest after ", token(ids[i]), ` (${i})`, ...real, ":");
  const p = data.lens_probabilities[n_layer][i];
  showBars(get("nexts"), data.lens_ids[n_layer][i].map((id, k) => [[token(id)], p[k], id === ids[i + 1]]));
}

// --- The token that everything is about ---------------------------------------------------------------------------

function show(i) {
  state.shown = i;
  get("tokens").querySelectorAll("button").forEach((button, at) => button.classList.toggle("shown", at === i));
  get("current").replaceChildren(`position ${i}: `, token(ids[i]));
  showHead();
  showStream();
  showNorms();
  showLens();
  showNext();
}

function choose(i) {
  state.chosen = i;
  check(get("tokens"), i);
  get("previous").disabled = i === 0;
  get("next").disabled = i === n - 1;
  show(i);
}

function makeTokens() {
  const box = get("tokens");
  ids.forEach((id, i) => {
    const button = make("button", { role: "radio" }, token(id), make("small", {}, String(id)));
    button.addEventListener("click", () => choose(i));
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(i));
    box.append(button);
  });
  box.addEventListener("pointerleave", () => state.shown !== state.chosen && show(state.chosen));
  steer(box, 1, choose);
  get("previous").addEventListener("click", () => choose(state.chosen - 1));
  get("next").addEventListener("click", () => choose(state.chosen + 1));
}

function start() {
  const sizes = `${n_layer} layers of ${n_head} heads, ${data.n_embd} channels`;
  get("about").textContent =
    `${data.model}: ${sizes}; a text of ${n} ${n === 1 ? "token" : "tokens"}. ` +
    "Layers, heads and positions are counted from 0, as in the names of the weights.";
  get("n-inner").textContent = data.n_inner;
  legend(get("stream-legend"), [
    ["ink", "none", true, "length of the stream"],
    ["blue", "circle", false, "added by attention"],
    ["orange", "square", false, "added by the feed-forward network"],
  ]);
  legend(get("norms-legend"), [
    ["ink", "circle", true, "before the LayerNorm"],
    ["blue", "ring", true, "after it"],
  ]);
  makeTokens();
  makeHeads();
  makeLarge();
  makeLens();
  check(get("heads"), 0);
  chooseHead(0);
  choose(n - 1);
  window.addEventListener("resize", () => show(state.shown));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    drawHeads();
    drawLarge();
  });
}

start();
