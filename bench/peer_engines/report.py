"""The Markdown report."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from .contest import CONTESTS, TESTS
from .figures import fastest_peer, rows

BUSY = 0.1
"""The share of a machine that others may use in a measurement."""
METHOD = """\
By llama-bench's method. pp512: a prompt of 512 random ids at once, logits after the last. tg128: 128 single steps from
an empty context, logits after each. tg128b8: eight sequences at once; tokens/s count all eight. The cache is emptied
before the clock starts; tokenizing and sampling are outside. All engines have the same weights: GPT-2 124M shapes,
initial random weights of transformers, converted by each engine's own tools. A model whose logits are far from
transformers' float32 (eight texts of sixteen random ids) is not timed.

Every engine is a process of its own, loaded once and stopped (SIGSTOP) while it is not its turn. In a round each engine
of a table's group runs once, on the same ids; the next round has the opposite order; a first round warms up. A ratio is
of two runs in one round: nbgpt's speed divided by the other's. Tables show medians over the rounds, ratios with their
quartiles; `peers.json` has every sample.
"""


def markdown(data: dict[str, Any], others: Sequence[dict[str, Any]] = ()) -> str:
    """The report of one machine; others: figures of other machines, shown beside its own."""
    sections = _in_order(data["sections"])
    parts = [
        "# nbgpt beside other engines\n\nMade by `python bench/peers.py`, which says how to install the peers.\n",
        _table(["the machine", ""], [[name, value] for name, value in data["machine"].items()]),
        _warning(sections),
        f"## nbgpt and the fastest peer\n\n{_table(*_summary(sections))}\n![tokens a second](peers.svg)\n",
        _machines([data, *others]) if others else "",
        f"## Every engine\n\n{_table(*_every(sections))}",
        _cold_start(data["cold_start"]) if "cold_start" in data else "",
        f"## How each engine ran\n\n{_table(*_entrants(data))}\n{_failures(data)}{_versions(data)}",
        f"## Method\n\n{METHOD}",
    ]
    return "\n".join(filter(None, parts))


def _warning(sections: list[dict[str, Any]]) -> str:
    busy = [one["busy"] for one in sections if one["busy"] > BUSY]
    if not busy:
        return ""
    return (
        f"**The machine was not idle: before {len(busy)} of {len(sections)} tests others used up to {max(busy):.0%} of "
        "it. Engines whose threads wait for each other by spinning lose most by that; measure again.**\n"
    )


def _in_order(sections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    tests, dtypes = list(TESTS), list(CONTESTS)
    return sorted(sections, key=lambda one: (-one["threads"], tests.index(one["test"]), dtypes.index(one["dtype"])))


def _table(heads: list[str], lines: list[list[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _ratio(ratios: tuple[float, float, float]) -> str:
    first, middle, third = ratios
    return f"{middle:.2f} ({first:.2f} to {third:.2f})"


def _summary(sections: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    lines = []
    for section in sections:
        ours, best = rows(section)[0], fastest_peer(section)
        if best:
            test = [ours.test, ours.dtype, str(ours.threads)]
            lines.append([*test, f"{ours.speed:.1f}", best.name, f"{best.speed:.1f}", f"**{_ratio(best.ratios)}**"])
    heads = [
        "test",
        "weights",
        "threads",
        "nbgpt, tokens/s",
        "fastest peer",
        "its tokens/s",
        "nbgpt / peer (quartiles)",
    ]
    return heads, lines


def _machines(all_data: list[dict[str, Any]]) -> str:
    """nbgpt by the fastest peer of each test, a column a machine."""
    cells: dict[tuple[str, ...], dict[int, str]] = {}
    for i, data in enumerate(all_data):
        for section in data["sections"]:
            ours, best = rows(section)[0], fastest_peer(section)
            if best:
                row = cells.setdefault((ours.test, ours.dtype, str(ours.threads)), {})
                row[i] = f"{best.ratios[1]:.2f} ({ours.speed:.0f} tokens/s; {best.name})"
    names = [data["machine"]["processor"] for data in all_data]
    lines = [[*key, *(row.get(i, "") for i in range(len(names)))] for key, row in cells.items()]
    order = {(test, dtype): i for i, (test, dtype) in enumerate((t, d) for t in TESTS for d in CONTESTS)}
    lines.sort(key=lambda line: (-int(line[2]), order[line[0], line[1]]))
    return f"## nbgpt / fastest peer on each machine\n\n{_table(['test', 'weights', 'threads', *names], lines)}"


def _failures(data: dict[str, Any]) -> str:
    """A line for each entrant that has no figures, or not all of them."""
    lines = [f"- {name}: {reason.splitlines()[0]}\n" for name, reason in data.get("failures", {}).items()]
    return "Left out:\n\n" + "".join(lines) + "\n" if lines else ""


def _every(sections: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    lines = [
        [row.test, row.dtype, str(row.threads), row.name, f"{row.speed:.1f}", _ratio(row.ratios) if row.ratios else ""]
        for section in sections
        for row in rows(section)
    ]
    return ["test", "group", "threads", "engine and weights", "tokens/s", "nbgpt / it (quartiles)"], lines


def _cold_start(cold: dict[str, Any]) -> str:
    (_, own), *_ = cold["seconds"].items()
    lines = []
    for name, seconds in cold["seconds"].items():
        ratio = median(theirs / ours for theirs, ours in zip(seconds, own, strict=True))
        lines.append([name, f"{median(seconds):.3f} s", f"{min(seconds):.3f} s", f"{ratio:.2f}"])
    table = _table(["engine", "median", "least", "its / nbgpt's, median of pairs"], lines)
    return (
        "## Cold start\n\n"
        "From the start of a process to the first byte of its first token, files in the page cache, kernels compiled "
        f"before: {cold['model']}, {cold['threads']} threads. nbgpt is `python -m nbgpt generate --max-tokens 1`; the "
        f"others are the shortest program that does the same (`bench/peer_engines/first_token.py`).\n\n{table}"
    )


def _entrants(data: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = [entrant.name for contest in CONTESTS.values() for entrant in contest]
    lines = []
    for name in filter(data["entrants"].get, names):
        found = data["entrants"][name]
        timed = "" if found["is_same_model"] else " **Not timed: this is another model.**"
        distance = f"{found['difference']:.2g} ({found['relative']:.1%})"
        lines.append([name, found["settings"] + timed, distance])
    return ["engine and weights", "settings", "most that logits differ from float32's (mean share)"], lines


def _versions(data: dict[str, Any]) -> str:
    parts = [f"{name.replace('_', '.')} {version}" for name, version in data["versions"].items()]
    return f"Versions (nbgpt: a digest of its sources): {', '.join(parts)}.\n"
