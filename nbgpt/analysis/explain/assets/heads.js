// All heads, what the chosen one is in the habit of, and arcs from the shown token to those that it looks at.

/** A head in a small canvas of at most 64 x 64 cells, each the largest share among those that it stands for. */
function drawSmall(canvas, number, shadeOf) {
  const blocks = Math.ceil(n / data.block);
  const step = Math.ceil(blocks / 64);
  const size = Math.ceil(blocks / step);
  canvas.width = canvas.height = size;
  const largest = new Uint8Array(size * size);
  let from = number * data.attention.shape[2];
  for (let i = 0; i < blocks; i++)
    for (let j = 0; j <= i; j++) {
      const cell = Math.floor(i / step) * size + Math.floor(j / step);
      largest[cell] = Math.max(largest[cell], data.attention.values[from++]);
    }
  const image = new ImageData(size, size);
  largest.forEach((p, cell) => image.data.set([...shadeOf(p / 255), 255], 4 * cell));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function drawHeads() {
  const shadeOf = shade();
  get("heads").querySelectorAll("canvas").forEach((canvas, number) => drawSmall(canvas, number, shadeOf));
}

/** A grid of layers by columns with names; button(layer, column) makes each element. */
function makeGrid(grid, names, width, button) {
  grid.style.gridTemplateColumns = `max-content repeat(${names.length}, ${width})`;
  grid.append(make("span"), ...names.map((name) => make("span", {}, name)));
  for (let layer = 0; layer < n_layer; layer++)
    grid.append(make("span", {}, String(layer)), ...names.map((_, column) => button(layer, column)));
}

function makeHeads() {
  const grid = get("heads");
  makeGrid(grid, range(n_head).map(String), "minmax(1.4rem, 3.5rem)", (layer, head) => {
    const label = headName(layer, head);
    const button = make("button", { role: "radio", title: label, "aria-label": label }, make("canvas"));
    button.addEventListener("click", () => chooseHead(layer * n_head + head));
    return button;
  });
  steer(grid, n_head, chooseHead);
  drawHeads();
  get("best").replaceChildren(...data.best.flatMap((number, i) => {
    const button = make("button", { className: "link" }, headName(Math.floor(number / n_head), number % n_head));
    button.addEventListener("click", () => chooseHead(number));
    return i ? [" · ", button] : [button];
  }));
}

const sharpness = (layer, head) => at(data.habits, layer, head, 4);

function why(layer, head) {
  const sharp = sharpness(layer, head);
  if (sharp === 0) return "The text is too short to tell heads apart by what they look at.";
  const opened = layer * n_head + head === data.best[0] ? "The page opened on this head, for it is the sharpest: on " : "On ";
  return `${opened}average a token gives ${percent(sharp)} of its attention to a single token that is neither the ` +
    "first, nor itself, nor the one just before it, where most heads look anyway.";
}

async function chooseHead(number) {
  [state.layer, state.head] = [Math.floor(number / n_head), number % n_head];
  const { layer, head } = state;
  check(get("heads"), number);
  get("head-name").textContent = capital(headName(layer, head));
  get("head-why").textContent = why(layer, head);
  const names = ["looks at itself", "at the token before", "at the first token", "at others"];
  showBars(get("habits"), names.map((name, habit) => [[name], at(data.habits, layer, head, habit)]));
  await fetchProducts(number);
  if (data.block > 1) exactWeights(number);
  showHead();
}

/** Of a page that is a file, queries and keys of some heads are all there are; live.js asks for others. */
let fetchProducts = async () => {};

function showHead() {
  const i = state.shown;
  const shares = range(i + 1).map((j) => weight(state.layer, state.head, i, j));
  const order = ranked(shares);
  state.pair = order[0];
  follow();
  drawLarge();
  const most = isExact() ? "takes most from" : `takes at most, in blocks of ${data.block} tokens, from`;
  get("looks-title").replaceChildren("Here ", token(ids[i]), ` (${i}) ${most}`);
  const spread = order.filter((j, place) => isExact() || place % data.block === 0);
  showBars(get("looks"), spread.slice(0, 6).map((j) => [[token(ids[j]), ` (${j})`], shares[j]]));
  showArcs();
  showPair(i, state.pair);
}

function choosePair(j) {
  state.pair = j;
  drawLarge();
  showPair(state.shown, j);
}

// --- Arcs ---------------------------------------------------------------------------------------------------------

const ARCS = 170; // pixels above the tokens
const TURNED = 84; // pixels for their texts
const EDGE = 8; // pixels at both sides

/** Half an ellipse from token i back to token j. */
function arc(x, i, j, p, kind) {
  const [right, left] = [x(i), x(j)];
  const height = Math.min(ARCS - 8, 14 + (right - left) * 0.5);
  const d = i === j
    ? `M${right - 4},${ARCS}a4,7 0 1 1 8,0`
    : `M${right},${ARCS}A${(right - left) / 2},${height} 0 0 0 ${left},${ARCS}`;
  const title = draw("title", {}, `${visible(ids[i])} (${i}) takes ${percent(p)} from ${visible(ids[j])} (${j})`);
  const path = draw("path", { class: `line ${kind}`, d, "stroke-opacity": 0.25 + 0.75 * p }, title);
  path.style.strokeWidth = `${(1 + 7 * p).toFixed(1)}px`;
  return path;
}

/** Arcs of the shown token, and thin ones of the others to where they look most. */
function showArcs() {
  const shares = range(state.shown + 1).map((j) => weight(state.layer, state.head, state.shown, j));
  const box = get("arcs");
  const width = Math.max(300, Math.min(box.clientWidth, 56 * view.size));
  const step = (width - 2 * EDGE) / view.size;
  const x = (i) => EDGE + (i - view.first + 0.5) * step;
  const svg = draw("svg", { width, height: ARCS + TURNED, role: "img", "aria-label": "Attention as arcs" });
  const inView = (i) => i >= view.first && i < view.first + view.size;
  if (isExact() && view.size <= 128) svg.append(...thinArcs(x));
  shares.forEach((p, j) => p >= 0.02 && inView(j) && svg.append(arc(x, state.shown, j, p, "blue")));
  const order = ranked(shares).slice(0, 8).filter((j) => shares[j] >= 0.02);
  const named = [state.shown, ...order, ...range(n)].filter(inView);
  named.forEach((i, place) => {
    const isNear = named.slice(0, place).some((other) => Math.abs(x(other) - x(i)) < Math.min(13, 0.9 * step + 4));
    if (isNear && (step < 13 || named.indexOf(i) < place)) return;
    const kind = i === state.shown ? "own" : order.includes(i) ? "seen" : "";
    const turned = `translate(${x(i)} ${ARCS + 6}) rotate(-90)`;
    const text = draw("text", { transform: turned, "text-anchor": "end", "dominant-baseline": "central", class: kind }, cut(visible(ids[i])));
    text.addEventListener("click", () => choose(i));
    svg.append(text);
  });
  get("arcs-title").replaceChildren("From ", token(ids[state.shown]), ` (${state.shown}) to where it looks; thin: the others' strongest look.`);
  box.replaceChildren(svg);
}

function thinArcs(x) {
  return range(view.size).map((k) => view.first + k).flatMap((i) => {
    if (i === state.shown) return [];
    const row = range(i - view.first + 1).map((k) => weight(state.layer, state.head, i, view.first + k));
    const j = ranked(row)[0];
    return row[j] >= 0.2 ? [arc(x, i, view.first + j, 0.25 * row[j], "other")] : [];
  });
}
