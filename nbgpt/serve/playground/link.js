// A text as the part of an address after #: JSON in base64url. It holds the requests that make the text again.

import { SETTINGS } from "./tree.js";

const VERSION = 1;
const MAX_STEPS = 1000;

export function encode(branch) {
  const steps = branch.path.map(({ at, token, settings }) => ({ at, token: token && [token.id, token.text], settings }));
  const { id: model, system_fingerprint: fingerprint } = branch.model;
  const content = { version: VERSION, model, fingerprint, prompt: branch.prompt, steps, checksum: branch.checksum };
  const bytes = new TextEncoder().encode(JSON.stringify(content));
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** What `encode` put in; null if it was not `encode` that made the text. */
export function decode(text) {
  try {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (c) => c.charCodeAt(0));
    const content = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return isValid(content) ? content : null;
  } catch {
    return null;
  }
}

function isValid({ version, model, fingerprint, prompt, steps, checksum }) {
  const areTexts = [model, fingerprint, prompt].every((value) => typeof value === "string");
  const hasSteps = Array.isArray(steps) && steps.length > 0 && steps.length <= MAX_STEPS;
  return version === VERSION && areTexts && hasSteps && steps.every(isStep) && Number.isInteger(checksum);
}

function isStep({ at, token, settings }) {
  const isToken = token === null || (Number.isInteger(token[0]) && typeof token[1] === "string");
  const names = Object.keys(settings);
  const areSettings = names.length === SETTINGS.length && SETTINGS.every((name) => Number.isFinite(settings[name]));
  return Number.isInteger(at) && at >= 0 && isToken && areSettings;
}
