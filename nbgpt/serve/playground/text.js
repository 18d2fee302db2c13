// The text as tokens, and the card that shows the likeliest ones in the place of a token.

import { get, make, percent, setAttributes, visible } from "./elements.js";

const [box, card, around] = [get("text"), get("card"), get("text-box")];
const LINGER = 300; // milliseconds that the card stays after the pointer has left
let branch = null;
let place = null; // of the token that the card is about
let choose = () => {}; // is called with (place, token)
let leaving = 0;

/** From nothing for a sure token to almost half orange for one of probability 0.25 % or less. */
function shade(logprob) {
  return `color-mix(in srgb, var(--orange) ${Math.round(45 * Math.min(1, -logprob / 6))}%, transparent)`;
}

const saidOf = ({ text, logprob }) => visible(text) + (logprob === null ? "" : `, ${percent(logprob)}`);

function spanOf(token, i) {
  const span = make("span", { textContent: token.text, tabIndex: -1 });
  setAttributes(span, { role: "option", "aria-selected": false, "aria-label": saidOf(token) });
  span.dataset.place = i;
  span.hidden = token.logprob === null && !token.text; // the token that begins texts
  span.classList.toggle("given", i < branch.n_prompt);
  span.classList.toggle("forced", branch.forced.has(i));
  span.classList.toggle("line", token.text.startsWith("\n"));
  span.classList.toggle("part", !token.text);
  if (token.logprob !== null) span.style.backgroundColor = shade(token.logprob);
  return span;
}

/** Show a branch, or nothing for null. */
export function showText(shown) {
  const hadFocus = card.contains(document.activeElement);
  if (shown !== branch) {
    [branch, place] = [shown, null];
    box.replaceChildren();
    card.hidden = true;
  }
  appendText();
  if (hadFocus && branch?.token) focusToken(branch.at, false);
}

/** Show the tokens that the branch has beyond those that are shown. */
export function appendText() {
  const tokens = branch?.tokens ?? [];
  const n = box.children.length;
  box.append(...tokens.slice(n).map((token, i) => spanOf(token, n + i)));
  box.hidden = !tokens.length;
  if (place === null) rove(tokens.findIndex((token) => token.logprob !== null));
}

/** Let one token take part in Tab. */
function rove(i) {
  box.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
  box.children[i]?.setAttribute("tabindex", 0);
}

function select(i) {
  box.querySelector("[aria-selected='true']")?.setAttribute("aria-selected", false);
  box.children[i]?.setAttribute("aria-selected", true);
  place = i;
}

/** Open the card about a token. */
function open(i) {
  clearTimeout(leaving);
  const token = branch.tokens[i];
  if (place === i && !card.hidden) return;
  select(i);
  card.hidden = false;
  card.replaceChildren(make("p", {}, token.logprob === null ? "The first token has no probability." : "Go on with"));
  if (token.logprob !== null) card.append(...rowsOf(token).map((one) => rowOf(one, one.id === token.id, i)));
  move(box.children[i]);
}

/** Put the card beneath a token, or above it where there is more room. It touches the token: a pointer finds across. */
function move(span) {
  const [outer, inner] = [around.getBoundingClientRect(), [...span.getClientRects()].at(-1)];
  const isBelow = inner.bottom + card.offsetHeight <= window.innerHeight || inner.top < card.offsetHeight;
  const top = isBelow ? inner.bottom - 1 : inner.top - card.offsetHeight + 1;
  card.style.left = `${Math.max(0, Math.min(inner.left - outer.left, outer.width - card.offsetWidth))}px`;
  card.style.top = `${top - outer.top}px`;
  if (getComputedStyle(card).position !== "fixed") return;
  const covered = inner.bottom - card.getBoundingClientRect().top; // on a phone, by the sheet that the card is there
  if (covered > 0) window.scrollBy(0, covered + inner.height);
}

/** The likeliest tokens, and the one that stands there if it is none of them. */
function rowsOf(token) {
  return token.top.some((one) => one.id === token.id) ? token.top : [...token.top, token];
}

function rowOf(token, isCurrent, i) {
  const name = make("span", { className: "token" }, visible(token.text) || "◦");
  const row = make("button", {}, name, make("span", { className: "share" }, percent(token.logprob)));
  if (isCurrent) setAttributes(row, { "aria-current": true, title: "as it is; choose it to write on from here again" });
  row.addEventListener("click", () => choose(i, token));
  return row;
}

function close() {
  clearTimeout(leaving);
  select(null);
  card.hidden = true;
}

/** Move the focus to the token in a direction, past hidden ones. */
function step(from, by) {
  let i = from + by;
  while (box.children[i]?.hidden) i += by;
  focusToken(i);
}

function focusToken(i, isOpen = true) {
  if (!box.children[i]) return;
  rove(i);
  box.children[i].focus();
  if (isOpen) open(i);
  else close();
}

function onKey(event) {
  const i = placeOf(event.target);
  const last = box.children.length - 1;
  const moves = {
    ArrowLeft: () => step(i, -1),
    ArrowRight: () => step(i, 1),
    Home: () => step(-1, 1),
    End: () => step(last + 1, -1),
    ArrowDown: () => card.querySelector("button")?.focus(),
  };
  moves.Enter = moves[" "] = moves.ArrowDown;
  if (!(event.key in moves) || i === null) return;
  event.preventDefault();
  open(i);
  moves[event.key]();
}

/** The Tab key came to a token. */
function onFocus(event) {
  if (event.target.matches(":focus-visible")) open(placeOf(event.target));
}

function onCardKey(event) {
  const rows = [...card.querySelectorAll("button")];
  const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const to = rows.indexOf(event.target) + by;
  if (to < 0) focusToken(place);
  else rows[to]?.focus();
}

function placeOf(element) {
  const found = element.closest("#text [data-place]");
  return found && Number(found.dataset.place);
}

function onEscape(event) {
  if (event.key !== "Escape" || card.hidden) return;
  event.stopPropagation();
  if (card.contains(document.activeElement)) focusToken(place);
  close();
}

/** Let the text react; `chosen` is called with a place and the token that is to stand there. */
export function startText(chosen) {
  choose = chosen;
  box.addEventListener("keydown", onKey);
  box.addEventListener("focusin", onFocus);
  card.addEventListener("keydown", onCardKey);
  around.addEventListener("keydown", onEscape);
  box.addEventListener("click", (event) => {
    if (placeOf(event.target) !== null) focusToken(placeOf(event.target));
  });
  box.addEventListener("pointermove", (event) => { // not pointerover, which comes too when a text grows beneath it
    if (event.pointerType === "mouse" && placeOf(event.target) !== null) open(placeOf(event.target));
  });
  around.addEventListener("pointerenter", () => clearTimeout(leaving));
  around.addEventListener("pointerleave", (event) => {
    // A finger leaves after each touch, say one that scrolls the card.
    const isAway = event.pointerType !== "touch" && !card.contains(document.activeElement);
    if (isAway) leaving = setTimeout(close, LINGER);
  });
  document.addEventListener("pointerdown", (event) => around.contains(event.target) || close());
  around.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !around.contains(event.relatedTarget)) close();
  });
}
