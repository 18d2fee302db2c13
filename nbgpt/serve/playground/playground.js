// The playground: what its buttons do.

import { ApiError, complete, models, tokenize, useKey } from "./api.js";
import { showBranches } from "./branches.js";
import { get, make, say } from "./elements.js";
import { showExplained, startTabs } from "./explain.js";
import { decode, encode } from "./link.js";
import { appendText, showText, startText } from "./text.js";
import { Branch, SETTINGS, Tree } from "./tree.js";

const PAUSE = 200; // milliseconds without a key until the prompt's tokens are counted
const tree = new Tree();
let available = []; // models
let writing = null; // {branch, abort: AbortController, ended: Promise}, while a text is being written

// --- What can go wrong ----------------------------------------------------------------------------------------------

/** Do something that asks the server; what it says against it is shown in a line. */
async function attempt(action) {
  say("error", "");
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) askForKey();
    say("error", error.message);
  }
}

function askForKey() {
  get("key-form").hidden = false;
  get("key").focus();
}

// --- Settings -------------------------------------------------------------------------------------------------------

const modelOf = () => available.find(({ id }) => id === get("model").value) ?? available[0];

/** The settings of the form; where there is no seed, a new one. */
function settingsOf() {
  const settings = Object.fromEntries(SETTINGS.map((name) => [name, get(name).valueAsNumber]));
  if (Number.isNaN(settings.seed)) [settings.seed] = crypto.getRandomValues(new Uint32Array(1));
  return settings;
}

function isFormValid() {
  for (const closed of document.querySelectorAll("details:has(:invalid)")) closed.open = true;
  return get("settings").reportValidity();
}

/** As many new tokens as are asked for, or as the context has room for. */
function fitted(settings, model, n_read) {
  const room = model.max_model_len - n_read;
  if (room < 1) throw new ApiError(`the text fills the model's context of ${model.max_model_len} tokens: shorten it`);
  return { ...settings, max_tokens: Math.min(settings.max_tokens, room) };
}

// --- Writing --------------------------------------------------------------------------------------------------------

/** End what is being written. */
async function halt() {
  writing?.abort.abort();
  await writing?.ended;
}

/** Write a branch, after whatever is being written has been ended; false if it was ended before its time. */
async function write(branch) {
  while (writing) await halt();
  tree.add(branch);
  const abort = new AbortController();
  const ended = stream(branch, abort.signal).finally(() => { writing = null; });
  writing = { branch, abort, ended: ended.catch(() => {}) };
  show();
  say("status", "Writing …");
  try {
    return await ended;
  } finally {
    finish(branch, abort.signal.aborted);
  }
}

async function stream(branch, signal) {
  try {
    for await (const { tokens, finish } of complete(branch.request, signal)) {
      branch.append(tokens, finish);
      appendText();
    }
    return true;
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    return false;
  }
}

function finish(branch, isStopped) {
  branch.end();
  if (!branch.n_new && !branch.finish) tree.discard(branch);
  show();
  const why = isStopped ? ", then stopped" : branch.finish === "stop" ? ", to the end of the text" : "";
  const n = branch.n_new;
  say("status", `Wrote ${n} ${n === 1 ? "token" : "tokens"}${why}. Seed ${branch.settings.seed}.`);
  get("heard").textContent = branch.newText;
}

async function writeFromPrompt() {
  if (!isFormValid()) return;
  const [model, prompt] = [modelOf(), get("prompt").value];
  await write(await rootOf(model, prompt, settingsOf()));
}

async function rootOf(model, prompt, settings) {
  const { tokens } = await tokenize(model.id, prompt);
  return new Branch(model, prompt, tokens, fitted(settings, model, tokens.length));
}

/** Go on after the first tokens of the shown text, as many as `at`, with a chosen one unless it is null. */
async function writeFrom(at, token) {
  if (!isFormValid()) return;
  await halt();
  const branch = tree.shown;
  if (!branch) return;
  await write(branch.fork(at, token, fitted(settingsOf(), branch.model, at + (token ? 1 : 0))));
}

// --- Links ----------------------------------------------------------------------------------------------------------

async function share() {
  const branch = tree.shown;
  history.replaceState(null, "", `#${encode(branch)}`);
  get("link").value = location.href;
  get("link-fingerprint").textContent = `${branch.model.id}, ${branch.model.system_fingerprint}`;
  get("link-panel").hidden = false;
  get("link").focus();
  get("link").select();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(tree.shown.text);
  } catch { // there is no clipboard for pages that come neither over https nor from this machine
    throw new ApiError("the browser does not let this page copy: select the text instead");
  }
  say("status", "Copied.");
}

/** Write the text of a link again, request by request. */
async function openLink() {
  if (location.hash.length < 2) return;
  say("warning", "");
  const content = decode(location.hash.slice(1));
  if (!content) throw new ApiError("this link is damaged: it holds no text");
  const model = modelFor(content);
  get("prompt").value = content.prompt;
  fill(content.steps[0].settings);
  get("model").value = model.id;
  showModel();
  await count();
  if (!(await replay(model, content))) return;
  const isSame = tree.shown.checksum === content.checksum;
  if (isSame) say("status", "This is the text of the link, to the token.");
  else say("warning", `${get("warning").textContent} The text differs from the one that the link was made for.`.trim());
}

/** The model that a link was made with, or the nearest to it, with a warning. */
function modelFor({ model, fingerprint }) {
  const same = available.find((one) => one.system_fingerprint === fingerprint);
  if (same) return same;
  const other = available.find((one) => one.id === model) ?? available[0];
  const [theirs, ours] = [`${model}, ${fingerprint}`, `${other.id}, ${other.system_fingerprint}`];
  say("warning", `This link was made with another model (${theirs}) than this one (${ours}): its text may differ.`);
  return other;
}

async function replay(model, { prompt, steps }) {
  let branch = await rootOf(model, prompt, steps[0].settings);
  if (!(await write(branch))) return false;
  for (const { at, token, settings } of steps.slice(1)) {
    branch = branch.fork(at, tokenAt(branch, at, token), settings);
    if (!(await write(branch))) return false;
  }
  return true;
}

/** A chosen token of a link, with its probability if the model shows it there. */
function tokenAt(branch, at, token) {
  if (!token) return null;
  const [id, text] = token;
  const top = branch.tokens[at]?.top ?? [];
  return { ...(top.find((one) => one.id === id) ?? { id, text, logprob: null }), top };
}

function fill(settings) {
  for (const name of SETTINGS) get(name).value = settings[name];
  const more = get("more-settings");
  more.open ||= [...more.querySelectorAll("input")].some((one) => one.value !== one.defaultValue);
}

// --- What is shown --------------------------------------------------------------------------------------------------

function show() {
  const branch = tree.shown;
  showText(branch);
  showBranches(tree, (chosen) => attempt(() => goTo(() => tree.show(chosen))));
  get("text").classList.toggle("writing", Boolean(writing));
  get("link-panel").hidden = true;
  const hadFocus = document.activeElement?.disabled === false && document.activeElement;
  get("stop").disabled = !writing;
  get("undo").disabled = !tree.canUndo;
  for (const id of ["continue", "share", "copy"]) get(id).disabled = !branch || Boolean(writing);
  if (hadFocus && hadFocus.disabled) get("write").focus();
}

/** Show another branch, with its prompt. */
async function goTo(move) {
  await halt();
  move();
  if (tree.shown) get("prompt").value = tree.shown.prompt;
  show();
  await count();
  say("status", tree.shown ? `A text of ${tree.shown.tokens.length} tokens.` : "Nothing is written yet.");
}

let counting = new AbortController();

/** Count the prompt's tokens. */
async function count() {
  counting.abort();
  counting = new AbortController();
  const { signal } = counting;
  try {
    const { count: n, max_model_len: most } = await tokenize(modelOf()?.id, get("prompt").value, signal);
    say("count", `${n} of ${most} tokens.`);
    get("count").classList.toggle("error", n >= most);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

function showModels() {
  get("model").replaceChildren(...available.map(({ id }) => make("option", {}, id)));
  get("model").hidden = get("model-label").hidden = available.length < 2;
  showModel();
}

function showModel() {
  const { id, dtype, system_fingerprint: fingerprint } = modelOf();
  get("model-name").textContent = `${id}, ${dtype}, ${fingerprint}`;
}

// --- Events ---------------------------------------------------------------------------------------------------------

function explainShown() {
  const branch = tree.shown;
  const [model, text] = branch ? [branch.model, branch.tokens.map(({ id }) => id)] : [modelOf(), get("prompt").value];
  return showExplained(model, text);
}

function onKey(event) {
  if (event.key === "Escape") halt();
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (available.length) attempt(writeFromPrompt);
}

function listen() {
  const clicks = {
    write: writeFromPrompt,
    continue: () => writeFrom(tree.shown.tokens.length, null),
    stop: halt,
    undo: () => goTo(() => tree.undo()),
    share,
    copy,
  };
  for (const [id, action] of Object.entries(clicks)) get(id).addEventListener("click", () => attempt(action));
  let pause = 0;
  get("prompt").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => attempt(count), PAUSE);
  });
  get("model").addEventListener("change", () => { showModel(); attempt(count); });
  get("settings").addEventListener("submit", (event) => event.preventDefault());
  get("key-form").addEventListener("submit", onKeyForm);
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => attempt(openLink));
  startText((at, token) => attempt(() => writeFrom(at, { ...token, top: tree.shown.tokens[at].top })));
  startTabs(() => attempt(explainShown));
}

function onKeyForm(event) {
  event.preventDefault();
  useKey(get("key").value);
  get("key-form").hidden = true;
  get("prompt").focus();
  attempt(start);
}

async function start() {
  available = await models();
  showModels();
  get("write").disabled = false;
  await count();
  await openLink();
}

if (window.matchMedia("(max-width: 48rem)").matches) get("settings-box").open = false;
listen();
attempt(start);
