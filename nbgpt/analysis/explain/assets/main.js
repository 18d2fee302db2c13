// The token that everything is about.

function show(i) {
  state.shown = i;
  get("tokens").querySelectorAll("button").forEach((button, j) => button.classList.toggle("shown", j === i));
  get("current").replaceChildren(`position ${i}: `, token(ids[i]), surprise(i));
  showNext();
  drawWay();
  showHead();
  showStream();
  showNorms();
  showLens();
  offerCandidates();
  showShares();
  if (isLive) showWithout();
}

function surprise(i) {
  if (i === 0) return ", nothing before it";
  const bits = data.bits.values[i];
  return `, ${bits.toFixed(1)} bits of surprise, number ${data.ranks.values[i]} of the predictions`;
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
    const rank = i ? String(data.ranks.values[i]) : "·";
    const button = make("button", { role: "radio", title: `id ${id}${surprise(i)}` }, token(id), make("small", {}, rank));
    if (i) button.style.background = fill(Math.min(1, data.bits.values[i] / 12), "--orange");
    button.addEventListener("click", () => choose(i));
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && n <= 256 && show(i));
    box.append(button);
  });
  box.addEventListener("pointerleave", () => state.shown !== state.chosen && show(state.chosen));
  box.classList.toggle("many", n > 100);
  steer(box, 1, choose);
  get("previous").addEventListener("click", () => choose(state.chosen - 1));
  get("next").addEventListener("click", () => choose(state.chosen + 1));
  if (n > 1) get("mean-bits").textContent = `mean: ${(sum(Array.from(data.bits.values)) / (n - 1)).toFixed(2)} bits a token`;
}

function makeAll() {
  const sizes = `${n_layer} layers of ${n_head} heads, ${data.n_embd} channels`;
  get("about").textContent =
    `${data.model}: ${sizes}; a text of ${n} ${n === 1 ? "token" : "tokens"}. ` +
    "Layers, heads and positions are counted from 0, as in the names of the weights.";
  get("n-inner").textContent = data.n_inner;
  makeTokens();
  makeWay();
  makeHeads();
  makeMatrix();
  makeStream();
  makeLens();
  makeShares();
  makeSwitches();
}

function redraw() {
  drawHeads();
  show(state.shown);
}

async function start() {
  await unpackAll(data);
  [state.layer, state.head] = [Math.floor(data.best[0] / n_head), data.best[0] % n_head];
  makeAll();
  choose(n - 1);
  await chooseHead(data.best[0]);
  window.addEventListener("resize", () => show(state.shown));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.documentElement.dataset.ready = "true";
}

start();
