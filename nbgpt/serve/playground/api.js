// The server's API. Addresses are relative to the page, so that the server may be mounted below a path.

const KEY = "nbgpt-api-key";

/** What a server says against a request, or that there is none. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

export const models = async () => (await json("v1/models")).data;
export const tokenize = (model, prompt, signal) => json("tokenize", { model, prompt }, signal);
export const explain = (model, prompt) => json("explain", { model, prompt });

/**
 * Continue a prompt; what comes is `{tokens, finish}`, as it is made. A token is `{id, text, logprob, top}`, and top
 * has the likeliest tokens in its place, each `{id, text, logprob}`. The text of some bytes of a character is in
 * hexadecimal after "bytes:".
 */
export async function* complete(body, signal) {
  const answer = await ask("v1/completions", { ...body, stream: true }, signal);
  for await (const event of events(answer.body)) {
    if (event.error) throw new ApiError(event.error.message);
    const [choice] = event.choices;
    yield { tokens: tokensOf(choice.logprobs), finish: choice.finish_reason };
  }
}

function tokensOf({ tokens, token_ids, token_logprobs, top_tokens }) {
  return tokens.map((text, i) => ({ id: token_ids[i], text, logprob: token_logprobs[i], top: top_tokens[i] }));
}

/** The JSON of server-sent events, up to the one that says that all are there. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError("the connection broke off: what is written so far stays");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.slice("data: ".length);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

async function json(path, body, signal) {
  return (await ask(path, body, signal)).json();
}

async function ask(path, body, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
  const answer = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new ApiError("the server does not answer: is it running?");
  });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new ApiError(told?.error?.message ?? `the server answers with status ${answer.status}`, answer.status);
}
