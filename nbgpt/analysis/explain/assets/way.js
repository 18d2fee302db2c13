// The way of one token through a layer, step by step, in numbers of the trace.

const way = { layer: 0, step: 0, timer: null };
const SECONDS = 3.5; // of each step while it plays

const streamAt = (p) => row(data.way.stream, p, state.shown - data.way.first);
const minus = (a, b) => a.map((x, c) => x - b[c]);
const number = (x) => String(short(x));
const statistic = (name, p) => at(data[name], p, state.shown);
const deviation = (p) => Math.sqrt(statistic("variance_before", p) + data.epsilon);
const centred = (p) => streamAt(p).map((x) => x - statistic("mean_before", p));
const scaled = (p) => centred(p).map((x) => x / deviation(p));

function normed(p) {
  const [gains, shifts] = [row(data.way.gains, p), row(data.way.shifts, p)];
  return scaled(p).map((x, c) => x * gains[c] + shifts[c]);
}

// Which numbers decide the scale: steps that can be compared share one.
const ofCopies = (l) => [...scaled(2 * l), ...normed(2 * l), ...normed(2 * l + 1)];
const ofStream = (point) => (l) => streamAt(2 * l + point);

/** What the model would say if it stopped before a layer. */
function lensWords(depth) {
  const p = at(data.lens_probabilities, depth, state.shown, 0);
  return [token(at(data.lens_ids, depth, state.shown, 0)), ` (${percent(p)})`];
}

/**
 * The steps through a layer: {name, values: bars, before: the stream that thin marks show, kind: colour of the bars,
 * scale: numbers that decide the scale, text: what happens, facts(box, layer): bars beside it}; l is the layer.
 */
const STEPS = [
  {
    name: "The stream comes in",
    kind: "ink",
    scale: ofStream(0),
    values: (l) => streamAt(2 * l),
    text: (l) => [
      `This is the vector of `, token(ids[state.shown]), ` as layer ${l} finds it, ${number(statistic("norms", 2 * l))} long. `,
      l === 0 ? "So far it is the token's row of wte plus the position's row of wpe, and knows of no other token." :
        `It is the sum of its embedding and of all that the ${l === 1 ? "layer" : `${l} layers`} before added. If the model stopped here it would say `,
      ...(l === 0 ? [] : [...lensWords(l), "."]),
    ],
  },
  {
    name: "ln_1 takes the mean away",
    kind: "blue",
    scale: ofStream(0),
    values: (l) => centred(2 * l),
    text: (l) => [
      `LayerNorm works on a copy; the stream stays as it is. First the mean of all ${data.n_embd} channels, ` +
        `${number(statistic("mean_before", 2 * l))}, is taken away from each of them.`,
    ],
  },
  {
    name: "ln_1 divides by the standard deviation",
    kind: "blue",
    scale: ofCopies,
    values: (l) => scaled(2 * l),
    text: (l) => [
      `The standard deviation of the channels is ${number(deviation(2 * l))}. Divided by it they vary by 1, however long ` +
        "the stream has become: every layer reads numbers of the size that it is used to.",
    ],
  },
  {
    name: "ln_1 applies gain and shift",
    kind: "blue",
    scale: ofCopies,
    values: (l) => normed(2 * l),
    text: () => [
      "Each channel has a gain and a shift of its own, which were learned: what this layer's attention cares for gets " +
        "large, what it ignores small. This copy is what the attention reads.",
    ],
  },
  {
    name: "Attention adds",
    kind: "orange",
    scale: ofStream(1),
    values: (l) => minus(streamAt(2 * l + 1), streamAt(2 * l)),
    text: (l) => [
      `From the copy, each of ${n_head} heads decides at which tokens it looks, and brings back what it found there. Together ` +
        `they make a vector ${number(statistic("added", 2 * l + 1))} long. Heads by the length of what they bring:`,
    ],
    facts: (box, l) => showHeadNorms(box, l),
  },
  {
    name: "The stream after attention",
    kind: "ink",
    before: (l) => streamAt(2 * l),
    scale: ofStream(1),
    values: (l) => streamAt(2 * l + 1),
    text: (l) => [
      `What attention brought is added, channel by channel. The marks are the stream before. It was ` +
        `${number(statistic("norms", 2 * l))} long and is ${number(statistic("norms", 2 * l + 1))} now: a sum, in which what was there before remains.`,
    ],
  },
  {
    name: "ln_2 makes a copy for the MLP",
    kind: "blue",
    scale: ofCopies,
    values: (l) => normed(2 * l + 1),
    text: (l) => [
      `The second LayerNorm does the same with its own gain and shift: mean ${number(statistic("mean_before", 2 * l + 1))}, ` +
        `standard deviation ${number(deviation(2 * l + 1))} before; after it the size of the numbers is again what the weights expect.`,
    ],
  },
  {
    name: "The MLP adds",
    kind: "orange",
    scale: ofStream(2),
    values: (l) => minus(streamAt(2 * l + 2), streamAt(2 * l + 1)),
    text: (l) => {
      const active = at(data.way.active, l, state.shown - data.way.first);
      return [
        `The MLP looks at this token alone. Of its ${data.n_inner} inner channels ${Math.round(active * data.n_inner)} ` +
          `are above zero (${percent(active)}); each writes its own pattern, as strongly as it is active. Together they are ` +
          `${number(statistic("added", 2 * l + 2))} long. The most active:`,
      ];
    },
    facts: (box, l) => showNeurons(box, l),
  },
  {
    name: "The stream leaves the layer",
    kind: "ink",
    before: (l) => streamAt(2 * l + 1),
    scale: ofStream(2),
    values: (l) => streamAt(2 * l + 2),
    text: (l) => [
      `Added again: ${number(statistic("norms", 2 * l + 2))} long. `,
      l + 1 < n_layer ? `Layer ${l + 1} reads this. If the model stopped here it would say ` : "ln_f and the LM head read this: the model says ",
      ...lensWords(l + 1), ".",
    ],
  },
];

function showHeadNorms(box, layer) {
  const i = state.shown;
  const norms = range(n_head).map((head) => at(data.way.head_norms, layer, head, i - data.way.first));
  showAmounts(box, ranked(norms).slice(0, 4).map((head) => {
    const shares = range(i + 1).map((j) => weight(layer, head, i, j));
    const j = ranked(shares)[0];
    return [[`head ${head}, most from `, token(ids[j]), ` (${j})`], norms[head]];
  }));
}

function showLengths(box, layer) {
  const names = ["length before the layer", "after attention", "after the MLP"];
  showAmounts(box, names.map((name, k) => [[name], statistic("norms", 2 * layer + k)]));
}

function showNeurons(box, layer) {
  const i = state.shown - data.way.first;
  const values = row(data.way.neuron_values, layer, i);
  const names = row(data.way.neurons, layer, i);
  showAmounts(box, names.slice(0, 4).map((name, k) => [[`channel ${name}`], Math.max(0, values[k])]));
}

/** The number that fills the height: one bar that is far longer than the others does not decide it. */
function limitOf(values) {
  const [first, second] = ranked(values, Math.abs).map((c) => Math.abs(values[c]));
  return (second === undefined || first < 3 * second ? first : second) || 1;
}

function drawWay() {
  const step = STEPS[way.step];
  const isKnown = state.shown >= data.way.first;
  get("way-play").disabled = get("way-back").disabled = get("way-on").disabled = !isKnown;
  if (!isKnown) return tellUnknown();
  const values = step.values(way.layer);
  const limit = limitOf(step.scale(way.layer));
  get("way-name").textContent = `${way.step + 1}. ${step.name}`;
  get("way-text").replaceChildren(...step.text(way.layer));
  get("way-facts").replaceChildren();
  (step.facts ?? showLengths)(get("way-facts"), way.layer);
  setBars(values, step.before?.(way.layer), limit, step.kind);
  const beyond = values.filter((x) => Math.abs(x) > 1.001 * limit).length;
  get("way-scale").textContent =
    `From −${number(limit)} to +${number(limit)}` + (beyond ? `; ${beyond} ${beyond > 1 ? "bars go" : "bar goes"} beyond.` : ".");
  get("way-back").disabled = way.step === 0 && way.layer === 0;
  get("way-on").disabled = isAtEnd();
  get("way-layer").value = way.layer;
  [...get("way-steps").children].forEach((item, i) => {
    if (i === way.step) item.firstChild.setAttribute("aria-current", "step");
    else item.firstChild.removeAttribute("aria-current");
  });
}

function tellUnknown() {
  get("way-name").textContent = "Not in this page";
  get("way-text").textContent = `Of a text this long the page holds the way of the tokens from position ${data.way.first} on.`;
  get("way-facts").replaceChildren();
  get("way-bars").className = "unknown";
}

/** Move the bars to these values; CSS makes the movement. */
function setBars(values, before, limit, kind) {
  const share = (x) => Math.max(-1, Math.min(1, x / limit));
  get("way-bars").className = kind;
  get("way-bars").setAttribute("aria-label", `${values.length} channels; the words beside say what happens to them`);
  [...get("way-bars").children].forEach((column, c) => {
    const [bar, mark] = column.children;
    bar.style.transform = `scaleY(${share(values[c])})`;
    bar.classList.toggle("clipped", Math.abs(values[c]) > 1.001 * limit);
    mark.hidden = !before;
    if (before) mark.style.bottom = `${50 + 50 * share(before[c])}%`;
    column.title = `channel ${data.way.channels[c]}: ${number(values[c])}` + (before ? `, before ${number(before[c])}` : "");
  });
}

const isAtEnd = () => way.step === STEPS.length - 1 && way.layer === n_layer - 1;

/** Go so many steps on, or back, through the layers. */
function walk(by) {
  const to = Math.max(0, Math.min(n_layer * STEPS.length - 1, way.layer * STEPS.length + way.step + by));
  [way.layer, way.step] = [Math.floor(to / STEPS.length), to % STEPS.length];
  drawWay();
  if (isAtEnd()) play(false);
}

function play(isOn) {
  clearInterval(way.timer);
  if (isOn && isAtEnd()) [way.layer, way.step] = [0, 0];
  way.timer = isOn ? setInterval(() => walk(1), 1000 * SECONDS) : null;
  get("way-play").textContent = isOn ? "Pause" : "Play";
  if (isOn) drawWay();
}

function steerWay(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.target !== get("way") || (!by && event.key !== " ")) return;
  event.preventDefault();
  if (by) walk(by);
  else play(!way.timer);
}

function makeWay() {
  const all = data.way.channels.length === data.n_embd;
  get("way-channels").textContent = all
    ? `all its ${data.n_embd} channels`
    : `${data.way.channels.length} of its ${data.n_embd} channels, the largest among them`;
  get("way-bars").append(...data.way.channels.map(() => make("span", {}, make("i"), make("b"))));
  get("way-layer").append(...range(n_layer).map((layer) => make("option", { value: layer }, String(layer))));
  get("way-layer").addEventListener("change", (event) => walk((+event.target.value - way.layer) * STEPS.length - way.step));
  get("way-steps").append(...STEPS.map(({ name }, i) => {
    const button = make("button", { title: name, "aria-label": `Step ${i + 1}: ${name}` });
    button.addEventListener("click", () => walk(i - way.step));
    return make("li", {}, button);
  }));
  get("way-back").addEventListener("click", () => walk(-1));
  get("way-on").addEventListener("click", () => walk(1));
  get("way-play").addEventListener("click", () => play(!way.timer));
  get("way").addEventListener("keydown", steerWay);
  const sample = (kind, text) => make("span", {}, make("i", { className: `sample ${kind}` }), text);
  get("way-legend").append(sample("ink", "the stream"), sample("blue", "a LayerNorm's copy"), sample("orange", "what is added"));
}
