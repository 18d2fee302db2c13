// The tabs, and what is in the second one: the page of `explain` for the text, in a frame of its own.

import { explain } from "./api.js";
import { get, say } from "./elements.js";

const MAX_TOKENS = 256; // of such a page, which holds the square of it in attention weights for each head
const tabs = [get("write-tab"), get("explain-tab")];
let explained = null; // what the frame shows

/** Show a tab, and tell whether it is the second one. */
function select(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    get(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
  return chosen === tabs[1];
}

/** `onExplain` is called when the second tab is opened. */
export function startTabs(onExplain) {
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener("click", () => select(tab) && onExplain());
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      tabs[1 - i].focus();
      tabs[1 - i].click();
    });
  }
}

/** Show what the model does with a text, given as one or as token ids, of which the first MAX_TOKENS are read. */
export async function showExplained(model, prompt) {
  const asked = JSON.stringify([model.id, prompt]);
  if (asked === explained) return;
  get("explain-frame").hidden = true;
  say("explain-about", "Reading the text …");
  try {
    const { page } = await explain(model.id, prompt.slice(0, MAX_TOKENS));
    get("explain-frame").src = page;
    get("explain-frame").hidden = false;
    explained = asked;
  } finally {
    say("explain-about", "");
  }
  if (prompt.length > MAX_TOKENS) say("explain-about", `The first ${MAX_TOKENS} of ${prompt.length} tokens.`);
}
