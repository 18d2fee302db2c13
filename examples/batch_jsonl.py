"""Continue many prompts from a file to a file: python examples/batch_jsonl.py prompts.jsonl texts.jsonl

Each line of the input is an object with "prompt" and, if it likes, options of generate ("max_tokens", "temperature",
"seed", ..., but not "n"). Each line of the output is that object with "text" and "finish_reason". What is in the output
already is not done again: after an interruption, run the same command.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

import nbgpt


def whole_lines(path: Path) -> int:
    """How many lines a file has; half a line at its end, from an interruption, is cut off."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    return data.count(b"\n")


def batches(requests: list[dict], size: int) -> Iterator[list[dict]]:
    """Neighbours that ask for the same options, a few at a time."""
    batch: list[dict] = []
    for request in requests:
        if batch and (len(batch) == size or options_of(request) != options_of(batch[0])):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def read(path: Path) -> list[dict]:
    """The requests of a file, one a line; all are looked at before the first is done."""
    requests = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):  # JSON may hold other line ends
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except ValueError as error:
            sys.exit(f"{path}, line {number}: {error}")
        if not isinstance(request, dict) or not isinstance(request.get("prompt"), str) or "n" in request:
            sys.exit(f'{path}, line {number}: expected an object with "prompt", a text, and without "n"')
        requests.append(request)
    return requests


def options_of(request: dict) -> dict:
    return {name: value for name, value in request.items() if name != "prompt"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--batch", type=int, default=8, help="prompts that grow together; default: %(default)s")
    parser.add_argument("--model", help="file, folder or name; default: the embedded model")
    options = parser.parse_args()
    if options.batch < 1:
        parser.error(f"--batch is {options.batch}; it must be at least 1")
    requests = read(options.input)
    done = whole_lines(options.output)
    model = nbgpt.load(options.model)
    with (
        options.output.open("a", encoding="utf-8") as output,
        tqdm(total=len(requests), initial=done, unit="prompt", file=sys.stderr) as bar,
    ):
        for batch in batches(requests[done:], options.batch):
            texts = model.generate([request["prompt"] for request in batch], **{"seed": 0, **options_of(batch[0])})
            for request, text in zip(batch, texts, strict=True):
                answer = {**request, "text": text.text, "finish_reason": text.finish_reason}
                output.write(json.dumps(answer, ensure_ascii=False) + "\n")
            output.flush()
            bar.update(len(batch))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it was")
