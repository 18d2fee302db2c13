// Elements of the page, and how tokens and probabilities are written.

export const get = (id) => document.getElementById(id);

/** An element with properties and children; a child that is a string becomes text, never markup. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A token's text with whatever is invisible made visible. */
export function visible(text) {
  return text
    .replace(/[\0-\x1f]/g, (c) => ({ "\n": "⏎", "\t": "⇥" })[c] ?? String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replaceAll("\x7f", "␡")
    .replaceAll(" ", "·");
}

export function percent(logprob) {
  const p = Math.exp(logprob);
  return p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %";
}

/** Show a line, or nothing. */
export function say(id, text) {
  get(id).textContent = text;
  get(id).hidden = !text;
}
