// The query of one token times the key of another, taken apart by dimension.

const slotOf = (number) => data.products.heads.indexOf(number);

/** What a product of two of the whole numbers is worth in a score: their units and the scale of the layer. */
function unitOf(slot) {
  const [query, key] = data.products.units[slot];
  return query * key * data.scales[Math.floor(data.products.heads[slot] / n_head)];
}

/** Products of query i and key j in each dimension, scaled. */
function termsOf(slot, i, j) {
  const { numbers } = data.products;
  const [unit, size] = [unitOf(slot), numbers.shape[3]];
  const [query, key] = [((slot * 2) * n + i) * size, ((slot * 2 + 1) * n + j) * size];
  return range(size).map((d) => numbers.values[query + d] * numbers.values[key + d] * unit);
}

/** Their sum, without the array. */
function score(slot, i, j) {
  const { numbers } = data.products;
  const size = numbers.shape[3];
  const [query, key] = [((slot * 2) * n + i) * size, ((slot * 2 + 1) * n + j) * size];
  let total = 0;
  for (let d = 0; d < size; d++) total += numbers.values[query + d] * numbers.values[key + d];
  return total * unitOf(slot);
}

function showPair(i, j) {
  const share = weight(state.layer, state.head, i, j);
  get("pair-title").replaceChildren(token(ids[i]), ` (${i}) takes ${percent(share)} from `, token(ids[j]), ` (${j})`);
  const slot = slotOf(state.layer * n_head + state.head);
  if (slot < 0) {
    get("pair-text").textContent =
      `A file of this length holds queries and keys of ${data.products.heads.length} heads, the sharpest; ` +
      "`explain --serve` shows those of all heads, and their exact shares.";
    get("pair").replaceChildren();
    get("pair-bars").replaceChildren();
    return;
  }
  const terms = termsOf(slot, i, j);
  const others = range(i + 1).map((k) => score(slot, i, k));
  const total = sum(terms);
  get("pair-text").textContent =
    `Query · key, scaled: ${signed(total)}, the sum of ${terms.length} products (below). The softmax weighs it against ` +
    `the scores of the other ${i} ${i === 1 ? "token" : "tokens"} that it sees, from ${signed(Math.min(...others))} ` +
    `to ${signed(Math.max(...others))}.`;
  columns(get("pair"), terms, (d) => `dimension ${d}: ${signed(terms[d])}`, "Products by dimension", 90);
  const order = ranked(terms, Math.abs);
  const first = order.slice(0, 5);
  const rest = sum(order.slice(5).map((d) => terms[d]));
  const rows = first.map((d) => [[`dimension ${d}`], terms[d]]);
  if (order.length > 5) rows.push([[`the other ${order.length - 5}`], rest]);
  showSigned(get("pair-bars"), rows);
}
