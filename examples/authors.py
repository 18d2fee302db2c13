"""Write a data set for a classifier: sentences of two books, and which of the two each is from.

    python examples/authors.py > authors.csv
    python -m nbgpt train-classifier authors.csv

Quotation marks are taken off, since either book has another kind of them.
"""

import argparse
import csv
import lzma
import re
import sys
from pathlib import Path

BOOKS = {"Baum": "the-wonderful-wizard-of-oz.txt.xz", "Wells": "the-time-machine.txt.xz"}
MIN_WORDS = 6


def sentences(book: str) -> list[str]:
    """The sentences of a book that have some words."""
    folder = Path(__file__).with_name("books")
    text = lzma.decompress((folder / book).read_bytes()).decode()
    found = []
    for paragraph in text.split("\n\n"):
        plain = " ".join(re.sub(r"[\"“”]|(?<!\w)'|'(?!\w)", "", paragraph).split())
        found += re.split(r"(?<=[.!?])\s+(?=[A-Z])", plain)
    return [one for one in found if len(one.split()) >= MIN_WORDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("text", "label"))
    for author, book in BOOKS.items():
        rows.writerows((one, author) for one in sentences(book))


if __name__ == "__main__":
    main()
