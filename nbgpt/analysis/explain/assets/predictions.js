// Logit lens, next token, and the shares of the parts in a logit.

const depthName = (depth) => (depth === 0 ? "embedding" : `layer ${depth - 1}`);

function makeLens() {
  const heads = ids.map((id) => make("th", { scope: "col" }, token(id)));
  const rows = range(n_layer + 1).map((depth) =>
    make("tr", {}, make("th", { scope: "row" }, depthName(depth)), ...ids.map((_, i) => lensCell(depth, i))));
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

function lensCell(depth, i) {
  const [likeliest, p] = [row(data.lens_ids, depth, i), row(data.lens_probabilities, depth, i)];
  const title = likeliest.map((id, k) => `${visible(id)} ${percent(p[k])}`).join("\n");
  const cell = make("td", { title }, token(likeliest[0]));
  cell.style.background = fill(p[0]);
  return cell;
}

let marked = []; // cells of the lens that show the chosen token's column

function showLens() {
  const i = state.shown;
  marked.forEach((cell) => cell.classList.remove("shown"));
  marked = [...get("lens").rows].map((row) => row.cells[i + 1]);
  marked.forEach((cell) => cell.classList.add("shown"));
  const [box, first] = [get("lens").parentElement, get("lens").rows[0]];
  const [own, names, all] = [first.cells[i + 1], first.cells[0], box].map((element) => element.getBoundingClientRect());
  if (own.left < names.right) box.scrollLeft -= names.right - own.left; // into view
  else if (own.right > all.right) box.scrollLeft += own.right - all.right;
  get("candidates-title").replaceChildren("The five likeliest after ", token(ids[i]), ` (${i}), layer by layer`);
  get("candidates").replaceChildren(make("tbody", {}, ...range(n_layer + 1).map((depth) => candidatesRow(depth, i))));
}

function candidatesRow(depth, i) {
  const p = row(data.lens_probabilities, depth, i);
  const cells = row(data.lens_ids, depth, i).map((id, k) => {
    const cell = make("td", {}, token(id), " ", make("small", {}, percent(p[k])));
    cell.style.background = fill(p[k]);
    return cell;
  });
  return make("tr", {}, make("th", { scope: "row" }, depthName(depth)), ...cells);
}

function showNext() {
  const i = state.shown;
  const real = i + 1 < n ? [", where the text goes on with ", token(ids[i + 1])] : [", where the text ends"];
  get("next-of").replaceChildren("Likeliest after ", token(ids[i]), ` (${i})`, ...real, ":");
  const p = row(data.next_probabilities, i);
  showBars(get("nexts"), row(data.next_ids, i).map((id, k) => [[token(id)], p[k], id === ids[i + 1]]));
}

// --- Direct logit attribution -------------------------------------------------------------------------------------

const EMBEDDING = 0; // places of the shares: embedding, heads and MLPs, biases, rounding
const BIASES = n_parts + 1;
const ROUNDING = n_parts + 2;

function shareName(place) {
  return { [EMBEDDING]: "embedding", [BIASES]: "biases", [ROUNDING]: "rounding" }[place] ?? partName(place - 1);
}

/** Shares of the chosen candidate's logit, less those of what it is compared with. */
function chosenShares() {
  const m = state.shown - data.attribution.first;
  const of = row(data.attribution.shares, m, +get("shares-of").value);
  const less = get("shares-less").value;
  return less === "" ? of : minus(of, row(data.attribution.shares, m, +less));
}

function offerCandidates() {
  const m = state.shown - data.attribution.first;
  if (m < 0) return;
  const names = row(data.attribution.ids, m).map((id, c) => {
    const isReal = c === 0 && state.shown + 1 < n ? ", the text's" : "";
    return [`${visible(id)} (logit ${at(data.attribution.logits, m, c).toFixed(2)}${isReal})`, c];
  });
  offer(get("shares-of"), names);
  offer(get("shares-less"), [["nothing", ""], ["the mean of all tokens", names.length], ...names]);
}

function showShares() {
  const isKnown = state.shown >= data.attribution.first;
  for (const id of ["shares-of", "shares-less"]) get(id).disabled = !isKnown;
  if (!isKnown) {
    get("shares-sum").textContent = `Of a text this long the page holds shares from position ${data.attribution.first} on.`;
    for (const id of ["shares-bar", "shares-grid", "shares-list"]) get(id).replaceChildren();
    return;
  }
  const shares = chosenShares();
  const heads = sum(range(n_parts).filter((part) => headOf(part) < n_head).map((part) => shares[part + 1]));
  const mlps = sum(range(n_layer).map((layer) => shares[1 + partOf(layer, n_head)]));
  const terms = [["embedding", shares[EMBEDDING]], ["heads", heads], ["MLPs", mlps], ["biases", shares[BIASES]]];
  if (Math.abs(shares[ROUNDING]) >= 0.005) terms.push(["rounding of activations", shares[ROUNDING]]);
  get("shares-sum").textContent = `${sum(shares).toFixed(2)} = ` + terms.map(([name, x]) => `${signed(x)} ${name}`).join(" ");
  drawFall(shares);
  drawShareGrid(shares);
  const order = ranked(shares, Math.abs).slice(0, 10);
  showSigned(get("shares-list"), order.map((place) => [[shareName(place)], shares[place]]));
}

/** Names and amounts of the columns of the waterfall: heads of a layer together. */
function fallSteps(shares) {
  const layers = range(n_layer).flatMap((layer) => [
    [`layer ${layer}, heads`, sum(range(n_head).map((head) => shares[1 + partOf(layer, head)]))],
    [`layer ${layer}, MLP`, shares[1 + partOf(layer, n_head)]],
  ]);
  return [["embedding", shares[EMBEDDING]], ...layers, ["biases", shares[BIASES]], ["rounding", shares[ROUNDING]]];
}

/** A waterfall from 0 to the logit. */
function drawFall(shares) {
  const box = get("shares-bar");
  const steps = fallSteps(shares);
  const height = 220;
  const width = Math.max(box.clientWidth, LEFT + RIGHT + 14 * (steps.length + 1));
  const step = (width - LEFT - RIGHT) / (steps.length + 1);
  let before = 0;
  const bars = steps.map(([name, amount]) => [name, amount, before, (before += amount)]);
  bars.push(["sum", before, 0, before]);
  const { ticks, share } = scaleOf(bars.flatMap(([, , from, to]) => [from, to]), false);
  const y = (value) => height - 22 - share(value) * (height - 22 - TOP);
  const svg = draw("svg", { width, height, role: "img", "aria-label": "Shares that add up to the logit" });
  for (const tick of ticks) {
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, String(short(tick))));
  }
  bars.forEach(([name, amount, from, to], i) => {
    const kind = name === "sum" ? "ink" : amount < 0 ? "orange" : "blue";
    const place = { x: LEFT + (i + 0.1) * step, width: 0.8 * step, y: Math.min(y(from), y(to)), height: Math.abs(y(from) - y(to)) };
    svg.append(draw("rect", { ...place, class: kind }, draw("title", {}, `${name}: ${signed(amount)}`)));
    const label = { embedding: "emb.", biases: "bias", rounding: "", sum: "sum" }[name] ?? (i % 2 ? String((i - 1) / 2) : "");
    svg.append(draw("text", { x: LEFT + (i + 0.5) * step, y: height - 6, "text-anchor": "middle" }, label));
  });
  box.replaceChildren(svg);
}

function drawShareGrid(shares) {
  const largest = Math.max(...range(n_parts).map((part) => Math.abs(shares[part + 1])), 1e-9);
  const cell = (part) => {
    const value = shares[part + 1];
    const element = make("td", { title: `${partName(part)}: ${signed(value)}` }, Math.abs(value) < 0.05 ? "" : value.toFixed(1));
    element.style.background = fill(Math.abs(value) / largest, value < 0 ? "--orange" : "--blue");
    return element;
  };
  const head = columnNames().map((name) => make("th", { scope: "col" }, name));
  get("shares-grid").replaceChildren(
    make("thead", {}, make("tr", {}, make("th"), ...head)),
    make("tbody", {}, ...range(n_layer).map((layer) =>
      make("tr", {}, make("th", { scope: "row" }, String(layer)), ...range(n_head + 1).map((head) => cell(partOf(layer, head)))))),
  );
}

function makeShares() {
  for (const id of ["shares-of", "shares-less"]) get(id).addEventListener("change", showShares);
}
