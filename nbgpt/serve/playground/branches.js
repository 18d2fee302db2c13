// The list of all branches, each below the one that it begins in.

import { get, make } from "./elements.js";

const cut = (text, n) => (text.length > n ? `${text.slice(0, n)}…` : text);

/** A root by its prompt and how it goes on, another one by its first tokens. */
function nameOf({ parent, prompt, token, newText }) {
  if (!parent) return `${cut(prompt, 30)}${cut(newText, 20)}` || "(nothing)";
  return `…${cut((token?.text ?? "") + newText, 40)}`;
}

function listOf(tree, parent, choose) {
  const items = tree.branches.filter((branch) => branch.parent === parent).map((branch) => {
    const button = make("button", {}, nameOf(branch));
    if (branch === tree.shown) button.setAttribute("aria-current", true);
    button.addEventListener("click", () => choose(branch));
    return make("li", {}, button, listOf(tree, branch, choose));
  });
  return items.length ? make("ul", {}, ...items) : "";
}

/** `choose` is called with the branch that somebody wants to see. */
export function showBranches(tree, choose) {
  const list = tree.branches.length ? listOf(tree, null, choose) : "";
  const hadFocus = get("branches").contains(document.activeElement);
  get("branches").replaceChildren(list || make("p", { className: "muted" }, "Every text that you make stays here."));
  if (hadFocus) get("branches").querySelector("[aria-current]")?.focus();
}
