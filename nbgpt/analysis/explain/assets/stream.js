// The stream and its LayerNorms, as charts over the points of the stream.

function pointName(p) {
  if (p === 0) return "embedding";
  return `layer ${Math.floor((p - 1) / 2)}, ${p % 2 ? "attention" : "feed-forward"}`;
}

function normName(p) {
  return p === n_points - 1 ? "ln_f" : `layer ${Math.floor(p / 2)}, ${p % 2 ? "ln_2" : "ln_1"}`;
}

/** A statistic of a token at every point. */
const course = (name, i) => range(n_points).map((p) => at(data[name], p, i));

/** Tokens that are drawn besides the shown one: all of a short text, some of a long one. */
const companions = () => range(n).filter((j) => j !== state.shown && j % Math.ceil(n / 100) === 0);

function showStream() {
  const i = state.shown;
  const added = course("added", i);
  const half = (odd) => added.map((value, p) => (p > 0 && p % 2 === odd ? value : null));
  const name = (p) => `added by ${pointName(p)}`;
  const after = (p) => `stream after ${pointName(p)}`;
  chart(get("stream-chart"), {
    n_layer,
    series: [
      { values: course("norms", i), name: after, kind: "ink", mark: "none", line: true },
      { values: half(1), name, kind: "blue", mark: "circle" },
      { values: half(0), name, kind: "orange", mark: "square" },
    ],
    others: companions().map((j) => course("norms", j)),
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
      const values = course(`${name}_${when}`, i);
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
  showNumbers();
}

function showNumbers() {
  const names = ["norms", "added", "mean_before", "variance_before", "mean_after", "variance_after"];
  const head = ["stream after", "its norm", "norm added", "read by"];
  head.push("mean before", "variance before", "mean after", "variance after");
  get("numbers").replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...range(n_points).map((p) => {
      const cells = names.map((name) => make("td", {}, String(short(at(data[name], p, state.shown)))));
      cells.splice(2, 0, make("td", {}, normName(p)));
      return make("tr", {}, make("th", { scope: "row" }, pointName(p)), ...cells);
    })),
  );
}

function makeStream() {
  legend(get("stream-legend"), [
    ["ink", "none", true, "length of the stream"],
    ["blue", "circle", false, "added by attention"],
    ["orange", "square", false, "added by the feed-forward network"],
  ]);
  legend(get("norms-legend"), [
    ["ink", "circle", true, "before the LayerNorm"],
    ["blue", "ring", true, "after it"],
  ]);
}
