"""A bot's loop, as a chat service would drive it: python examples/bot.py

A line of standard input is a message, "NAME: text"; a line of standard output is the bot's answer. The bot knows the
last messages of the channel as a script of a play, and answers when it is spoken to.
"""

import argparse
import sys
from collections import deque

import nbgpt


def answer(model: nbgpt.Model, history: deque[str], name: str, seed: int | None) -> str:
    """What the bot says next: one line, which ends where the next speaker would begin."""
    script = "\n".join([*history, f"{name}:"])
    said = model.generate(
        script,
        max_tokens=40,
        stop=["\n", *{f"{line.partition(':')[0]}:" for line in history}],
        repetition_penalty=1.1,
        seed=seed,
        overflow="truncate_left",
    )
    return said.text.strip() or "..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="Holmes", help="what the bot is called; default: %(default)s")
    parser.add_argument("--always", action="store_true", help="answer every message, not only those that name the bot")
    parser.add_argument("--seed", type=int, help="the same seed gives the same answers")
    parser.add_argument("--model", help="file, folder or name; default: the embedded model")
    options = parser.parse_args()
    model = nbgpt.load(options.model)
    history: deque[str] = deque(maxlen=20)
    for line in sys.stdin:
        message = line.strip()
        if not message:
            continue
        history.append(message if ":" in message else f"Somebody: {message}")
        if options.always or options.name.lower() in message.lower():
            said = answer(model, history, options.name, options.seed)
            history.append(f"{options.name}: {said}")
            print(f"{options.name}: {said}", flush=True)


if __name__ == "__main__":
    main()
