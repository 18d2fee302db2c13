// With `explain --serve`: what is not in the page is asked for.

async function ask(question, body) {
  const answer = await fetch(question, { method: "POST", body: JSON.stringify(body) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  await unpackAll(found);
  return found;
}

isLive = true;

/** Queries and keys of a head take the place of the others'. */
fetchProducts = async (number) => {
  if (slotOf(number) < 0) data.products = await ask("products", { head: number });
};

const answers = new Map(); // predictions after every token, by the parts that are off

withoutParts = async () => {
  const parts = [...off].sort((a, b) => a - b);
  const key = parts.join();
  if (!answers.has(key)) answers.set(key, await ask("ablate", { off: parts.map((part) => [layerOf(part), headOf(part)]) }));
  const found = answers.get(key);
  Object.assign(data.texts, found.texts);
  const i = state.shown;
  return { ids: row(found.ids, i), p: row(found.probabilities, i), bits: at(found.divergence, i) };
};
