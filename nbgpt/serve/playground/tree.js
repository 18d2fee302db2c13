// Texts as a tree. A branch is one request to the server with what came of it; it begins with a prompt, or somewhere in
// another branch, perhaps with a token that somebody chose. So a text is made again by the requests from its root on.

export const SETTINGS = [
  "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "typical_p", "epsilon_cutoff",
  "eta_cutoff", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size", "dry_multiplier", "mirostat_tau",
];
const N_TOP = 8;

export class Branch {
  /** ids: token ids of what is read before the first new token. settings: numbers by the names of SETTINGS. */
  constructor(model, prompt, ids, settings, origin = {}) {
    const { parent = null, at = 0, token = null } = origin;
    Object.assign(this, { model, prompt, ids, settings, parent, at, token });
    this.n_prompt = parent?.n_prompt ?? ids.length; // tokens of the prompt at the root
    this.forced = new Set([...(parent?.forced ?? [])].filter((place) => place < at)); // places of chosen tokens
    if (token) this.forced.add(at);
    const isPart = token?.text.startsWith("bytes:"); // then only the server knows what text the tokens make together
    this.isEcho = !parent || isPart; // the answer has the tokens that are read, too
    this.tokens = this.isEcho ? [] : [...parent.tokens.slice(0, at), ...(token ? [token] : [])];
    this.finish = null;
  }

  /** A branch that begins with the first tokens of this one, as many as `at`, and a chosen one, unless it is null. */
  fork(at, token, settings) {
    const ids = this.tokens.slice(0, at).map((one) => one.id);
    if (token) ids.push(token.id);
    return new Branch(this.model, this.prompt, ids, settings, { parent: this, at, token });
  }

  get request() {
    return { ...this.settings, model: this.model.id, prompt: this.ids, logprobs: N_TOP, echo: this.isEcho };
  }

  get n_new() {
    return Math.max(0, this.tokens.length - this.ids.length);
  }

  get text() {
    return this.tokens.map((token) => token.text).join("");
  }

  get newText() {
    return this.tokens.slice(this.ids.length).map((token) => token.text).join("");
  }

  append(tokens, finish) {
    this.tokens.push(...tokens);
    this.finish = finish;
  }

  /** No more will come. A text that time or somebody ended is, from now on, one of as many tokens as it has. */
  end() {
    if (this.finish !== "stop") this.settings.max_tokens = this.n_new;
  }

  /** The branches from the root to this one. */
  get path() {
    return [...(this.parent?.path ?? []), this];
  }

  /** A number that differs, in all likelihood, from that of other token ids: 32 bits by FNV-1a. */
  get checksum() {
    return this.tokens.reduce((sum, { id }) => Math.imul(sum ^ id, 0x01000193) >>> 0, 0x811c9dc5);
  }
}

export class Tree {
  branches = []; // by age
  shown = null;
  #past = []; // what was shown before

  add(branch) {
    this.branches.push(branch);
    this.show(branch);
  }

  show(branch) {
    if (branch === this.shown) return;
    this.#past.push(this.shown);
    this.shown = branch;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  undo() {
    this.shown = this.#past.pop() ?? null;
  }

  /** Forget a branch that is shown, as if it had never been. */
  discard(branch) {
    this.branches = this.branches.filter((one) => one !== branch);
    this.undo();
  }
}
