"""Keep the lines of a file that a model finds likely: python examples/filter_sentences.py sentences.txt --above -5

Lines go to standard output in their order; with --scores each is led by its mean log-probability a token, in nats.
"""

import argparse
import sys
from itertools import islice

import nbgpt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=argparse.FileType(encoding="utf-8"), help="a sentence a line; - is standard input")
    parser.add_argument("--above", type=float, default=-5.0, help="mean log-probability to keep; default: %(default)s")
    parser.add_argument("--scores", action="store_true", help="write the mean log-probabilities too")
    parser.add_argument("--model", help="file, folder or name; default: the embedded model")
    options = parser.parse_args()
    model = nbgpt.load(options.model)
    lines = (line.rstrip("\n") for line in options.file if line.strip())
    kept = total = 0
    while batch := list(islice(lines, 64)):
        for line, score in zip(batch, model.score_batch(batch, bos=True), strict=True):
            total += 1
            if score.mean >= options.above:
                kept += 1
                print(f"{score.mean:.3f}\t{line}" if options.scores else line, flush=True)
    print(f"kept {kept} of {total} lines", file=sys.stderr)


if __name__ == "__main__":
    main()
