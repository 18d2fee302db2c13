"use strict";

// The trace: n tokens; the stream has 2 n_layer + 1 points, after the embedding and each attention and MLP.
const data = JSON.parse(document.getElementById("trace").textContent);
const { ids, n_layer, n_head } = data;
const n = ids.length;
const n_points = 2 * n_layer + 1;
const n_parts = n_layer * (n_head + 1); // heads and MLPs
const state = { chosen: n - 1, shown: n - 1, layer: 0, head: 0, pair: 0 };

const TYPES = { uint8: Uint8Array, int16: Int16Array, int32: Int32Array, float32: Float32Array };

/** Unpack an array as packed.py packs it: {shape, values}. */
async function unpack({ dtype, shape, data }) {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return { shape, values: new TYPES[dtype](await new Response(stream).arrayBuffer()) };
}

/** Unpack all arrays in an object, in their places. */
async function unpackAll(box) {
  await Promise.all(Object.entries(box).map(async ([key, value]) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return;
    if ("dtype" in value) box[key] = await unpack(value);
    else await unpackAll(value);
  }));
}

/** An element of an array. */
const at = ({ shape, values }, ...where) => values[where.reduce((sum, i, axis) => sum * shape[axis] + i, 0)];

/** The numbers along the last axis. */
function row({ shape, values }, ...where) {
  const size = shape.at(-1);
  const start = size * where.reduce((sum, i, axis) => sum * shape[axis] + i, 0);
  return Array.from(values.subarray(start, start + size));
}

const range = (length) => Array.from({ length }, (_, i) => i);
const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);

/** Indices of the numbers, the largest of `size` first. */
const ranked = (numbers, size = (x) => x) => range(numbers.length).sort((a, b) => size(numbers[b]) - size(numbers[a]));

// --- Elements -----------------------------------------------------------------------------------------------------

const get = (id) => document.getElementById(id);
const percent = (p) => (p >= 0.1 ? (100 * p).toFixed(0) : p >= 0.001 ? (100 * p).toFixed(1) : "< 0.1") + " %";
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);

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
    const from = buttons.indexOf(event.target);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const to = { Home: 0, End: buttons.length - 1 }[event.key] ?? from + step[event.key];
    if (from < 0 || !(to in buttons)) return;
    event.preventDefault();
    choose(to);
    buttons[to].focus();
  });
}

function check(group, chosen) {
  [...group.querySelectorAll("button")].forEach((button, i) => {
    button.setAttribute("aria-checked", i === chosen);
    button.tabIndex = i === chosen ? 0 : -1;
  });
}

/** Give a select these options, (text, value) each, and keep its value if it is still among them. */
function offer(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([text, value]) => make("option", { value }, text)));
  if (options.some(([, value]) => String(value) === before)) select.value = before;
}

// --- Colours: from the style sheet, so that both schemes work -----------------------------------------------------

function colour(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

/** From the panel's colour for 0 to blue for 1; the root lifts small shares, which would not be seen. */
function shade() {
  const [low, high] = [colour("--panel"), colour("--blue")];
  return (p) => low.map((c, i) => Math.round(c + (high[i] - c) * Math.sqrt(p)));
}

/** A background between the panel's colour for 0 and half of the named one for 1. */
const fill = (p, name = "--blue") => `color-mix(in srgb, var(${name}) ${Math.round(45 * p)}%, var(--panel))`;
