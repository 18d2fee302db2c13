// Heads and MLPs are switched off, one at a time in a page that is a file, as one likes with `explain --serve`.

const off = new Set(); // parts

/** Predictions without the parts that are off: {ids, p, bits}; live.js replaces it. */
let withoutParts = async () => {
  const [part] = off;
  const { ids, probabilities, divergence } = data.switches;
  return { ids: row(ids, part), p: row(probabilities, part), bits: at(divergence, part) };
};
let isLive = false;
let asked = 0; // questions so far: an answer that comes late does not cover that to a newer one

function makeSwitches() {
  const known = data.switches !== null;
  makeGrid(get("switches"), columnNames(), "minmax(1.9rem, 3.5rem)", (layer, head) => {
    const part = partOf(layer, head);
    const effect = known ? `: ${at(data.switches.divergence, part).toFixed(3)} bits` : "";
    const title = partName(part) + effect;
    const button = make("button", { title, "aria-label": title, "aria-pressed": "false", disabled: !known && !isLive });
    if (known) button.style.background = fill(shadeOfEffect(part), "--orange");
    button.addEventListener("click", () => flip(part));
    return button;
  });
  steer(get("switches"), n_head + 1, () => {});
  get("switches-note").textContent = switchesNote(known);
  if (known || isLive) {
    if (known) off.add(firstOff());
    showWithout();
  }
}

/** From 0 to 1, logarithmic: some parts of layer 0 do a hundred times what others do. */
function shadeOfEffect(part) {
  const { values } = data.switches.divergence;
  const size = (bits) => Math.log1p(100 * bits);
  return size(values[part]) / size(Math.max(...values, 1e-9));
}

/** The head whose absence moves the prediction most. */
function firstOff() {
  const heads = range(n_parts).filter((part) => headOf(part) < n_head);
  return heads[ranked(heads.map((part) => at(data.switches.divergence, part)))[0]];
}

function switchesNote(known) {
  if (isLive) return "Choose any number of parts; predictions are computed anew, after the chosen token.";
  if (known) return "Each part was switched off by itself in advance, for the prediction after the last token; the head with the " +
    "greatest effect is chosen. `explain --serve` switches several at once, after any token.";
  return "The text is too long to switch every part off in advance; `explain --serve` does it when asked.";
}

function flip(part) {
  const was = off.has(part);
  if (!isLive) off.clear();
  if (was) off.delete(part);
  else off.add(part);
  showWithout();
}

async function showWithout() {
  get("switches").querySelectorAll("button").forEach((button, part) => button.setAttribute("aria-pressed", off.has(part)));
  const position = isLive ? state.shown : n - 1;
  const whole = { ids: row(data.next_ids, position), p: row(data.next_probabilities, position), bits: 0 };
  const question = ++asked;
  const found = off.size ? await withoutParts() : whole;
  if (question !== asked) return; // something else has been asked meanwhile
  const names = [...off].sort((a, b) => a - b).map(partName);
  const said = names.length > 3 ? `${names.length} parts` : names.join(" and ");
  const title = off.size ? `Without ${said}, after ` : "With all parts, after ";
  get("without-title").replaceChildren(title, token(ids[position]), ` (${position}): ${found.bits.toFixed(3)} bits away`);
  const other = off.size ? `without ${names.length > 1 ? "them" : "it"}` : "all parts";
  const cell = (side, k) => {
    const element = make("td", {}, token(side.ids[k]), " ", make("small", {}, percent(side.p[k])));
    element.style.background = fill(side.p[k]);
    return element;
  };
  get("without").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", {}, ""), make("th", { scope: "col" }, "all parts"), make("th", { scope: "col" }, other))),
    make("tbody", {}, ...range(whole.ids.length).map((k) =>
      make("tr", {}, make("th", { scope: "row" }, String(k + 1)), cell(whole, k), cell(found, k)))),
  );
}
