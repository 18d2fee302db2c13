// The chosen head as a matrix, with tokens at both axes; of a long text a part of it.

const LABEL = 92; // pixels for the tokens at the left and above
const MARGIN = 6; // at the other two sides
const SMALLEST = 16; // tokens of the closest view
const LARGEST_CELL = 56; // pixels: a short text needs no more
const view = { first: 0, size: n }; // tokens first..first + size - 1, along both axes

const cut = (text) => (text.length > 10 ? text.slice(0, 9) + "…" : text);
const triangle = (i, j) => (i * (i + 1)) / 2 + j;

let exact = { number: -1, weights: null }; // the last head whose weights were computed from queries and keys

/** Weights of a head from its queries and keys, if the page has them: Float32Array of a triangle, else null. */
function exactWeights(number) {
  if (exact.number === number) return exact.weights;
  const slot = data.products.heads.indexOf(number);
  if (slot < 0) return null;
  const weights = new Float32Array(triangle(n, 0));
  for (let i = 0; i < n; i++) weights.set(softmax(range(i + 1).map((j) => score(slot, i, j))), triangle(i, 0));
  exact = { number, weights };
  return weights;
}

function softmax(scores) {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = scores.map((x) => Math.exp(x - largest));
  const total = sum(powers);
  return powers.map((x) => x / total);
}

/** The share of token j in row i; of a long text the largest in a block of tokens, unless the page knows better. */
function weight(layer, head, i, j) {
  if (j > i) return 0;
  const number = layer * n_head + head;
  if (data.block > 1 && exact.number === number) return exact.weights[triangle(i, j)];
  const block = triangle(Math.floor(i / data.block), Math.floor(j / data.block));
  return data.attention.values[number * data.attention.shape[2] + block] / 255;
}

const isExact = () => data.block === 1 || exact.number === state.layer * n_head + state.head;
const cellSize = () => Math.min(LARGEST_CELL, (get("head").parentElement.clientWidth - LABEL - MARGIN) / view.size);

/** Move the view so that it holds the shown token. */
function follow() {
  if (state.shown < view.first) view.first = state.shown;
  if (state.shown >= view.first + view.size) view.first = state.shown - view.size + 1;
}

/** Show half or twice as many tokens, around the shown one or the one that is pointed at. */
function zoom(factor, around = state.shown) {
  const size = Math.min(n, Math.max(Math.min(SMALLEST, n), Math.round(view.size * factor)));
  view.first = Math.max(0, Math.min(n - size, Math.round(around - ((around - view.first) * size) / view.size)));
  view.size = size;
  follow();
  drawLarge();
  showArcs();
}

function drawLarge() {
  const canvas = get("head");
  const [size, ratio] = [cellSize(), window.devicePixelRatio || 1];
  const width = LABEL + size * view.size + MARGIN;
  canvas.width = canvas.height = Math.round(width * ratio);
  canvas.style.width = canvas.style.height = `${width}px`;
  canvas.setAttribute("aria-label", `Attention of ${headName(state.layer, state.head)}; in words beside it`);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.translate(LABEL, LABEL);
  drawCells(context, size);
  drawLabels(context, size);
  frame(context, size);
  get("closer").disabled = view.size <= SMALLEST;
  get("wider").disabled = view.size >= n;
  get("zoom").hidden = n <= SMALLEST;
  const part = view.size < n ? `Positions ${view.first} to ${view.first + view.size - 1} of ${n}. ` : "";
  const blocks = isExact() ? "" : `A cell is the largest share among ${data.block} × ${data.block} tokens.`;
  get("zoom-text").textContent = part + blocks;
}

function drawCells(context, size) {
  const shadeOf = shade();
  const gap = size > 6 ? -1 : 0.3;
  for (let i = 0; i < view.size; i++)
    for (let j = 0; j <= i; j++) {
      const p = weight(state.layer, state.head, view.first + i, view.first + j);
      if (p === 0 && size < 2) continue;
      context.fillStyle = `rgb(${shadeOf(p)})`;
      context.fillRect(j * size, i * size, size + gap, size + gap);
    }
}

function drawLabels(context, size) {
  const css = getComputedStyle(document.documentElement);
  const every = Math.ceil(15 / size);
  context.font = '12px ui-monospace, "DejaVu Sans Mono", monospace';
  context.textBaseline = "middle";
  for (let at = 0; at < view.size; at++) {
    const i = view.first + at;
    if (i !== state.shown && (at % every || Math.abs(i - state.shown) < every)) continue; // makes room
    context.fillStyle = css.getPropertyValue(i === state.shown ? "--ink" : "--muted");
    context.textAlign = "right";
    context.fillText(cut(visible(ids[i])), -6, (at + 0.5) * size);
    context.save();
    context.translate((at + 0.5) * size, -6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(cut(visible(ids[i])), 0, 0);
    context.restore();
  }
}

/** Frame the shown token's row, and the token of the pair. */
function frame(context, size) {
  const css = getComputedStyle(document.documentElement);
  const [i, j] = [state.shown - view.first, state.pair - view.first];
  context.strokeStyle = css.getPropertyValue("--orange");
  context.lineWidth = 2;
  context.strokeRect(-1, i * size - 1, (i + 1) * size + 1, size + 1);
  context.strokeStyle = css.getPropertyValue("--ink");
  if (j >= 0) context.strokeRect(j * size - 1, i * size - 1, size + 1, size + 1);
}

/** Which row and column of the large head lie under the pointer; null outside. */
function cellAt(event) {
  const box = get("head").getBoundingClientRect();
  const place = (offset) => view.first + Math.floor((offset - LABEL) / cellSize());
  const [i, j] = [place(event.clientY - box.top), place(event.clientX - box.left)];
  return i >= view.first && j >= view.first && i < view.first + view.size && j <= i ? [i, j] : null;
}

function makeMatrix() {
  const canvas = get("head");
  canvas.addEventListener("pointermove", (event) => {
    const cell = cellAt(event);
    if (cell) showPair(...cell);
  });
  canvas.addEventListener("pointerleave", () => showPair(state.shown, state.pair));
  canvas.addEventListener("click", (event) => {
    const cell = cellAt(event);
    if (!cell) return;
    choose(cell[0]);
    choosePair(cell[1]);
  });
  canvas.addEventListener("dblclick", (event) => zoom(0.5, (cellAt(event) ?? [state.shown])[0]));
  get("closer").addEventListener("click", () => zoom(0.5));
  get("wider").addEventListener("click", () => zoom(2));
}
