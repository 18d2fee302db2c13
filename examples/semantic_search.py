"""Find the lines of a file that are nearest to a question: python examples/semantic_search.py notes.txt "a ship at sea"

Each line is embedded once as the mean of its tokens' hidden states; nearness is the cosine after the mean of all lines
is taken away, since the vectors of a language model share a large common part.
"""

import argparse
from pathlib import Path

import numpy as np

import nbgpt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a text a line, UTF-8")
    parser.add_argument("question")
    parser.add_argument("-k", type=int, default=3, help="how many lines to show; default: %(default)s")
    parser.add_argument("--model", help="file, folder or name; default: the embedded model")
    options = parser.parse_args()
    lines = [line for line in options.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        parser.error(f"{options.file} has no lines")
    model = nbgpt.load(options.model)
    vectors = model.embed([*lines, options.question], normalize=False)
    vectors -= vectors[:-1].mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    nearness = vectors[:-1] @ vectors[-1]
    for place in np.argsort(-nearness)[: options.k]:
        print(f"{nearness[place]:.3f}\t{lines[place]}")


if __name__ == "__main__":
    main()
