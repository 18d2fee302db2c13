"""Prompts that were read lately: pages of keys and values by the ids they hold, for prompts that begin alike.

A node is a page, found by the ids in it and the node before it, so that a chain of nodes spells a prompt and equal
beginnings are stored once. Ids are compared, not only their hashes: a hit is never wrong. Nodes are dropped least
recently used first, when there are too many or when somebody needs the memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Ids

from ..abi.layout import PAGE
from .kv_cache import KVCache, Sequence

LEAST_SHARED = 16
"""Ids that must be in common to be worth sharing: part of a page is copied when the text goes on in it."""


def n_in_common(a: Ids[int], b: Ids[int]) -> int:
    """With how many equal ids both begin."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])


class _Node:
    """A page of a prompt; only the last page of a prompt has fewer than PAGE ids."""

    def __init__(self, parent: _Node | None, ids: tuple[int, ...], page: Sequence) -> None:
        self.parent = parent
        self.ids = ids
        self.page = page
        self.children: list[_Node] = []


class PrefixCache:
    """Pages of prompts that were read, for later requests."""

    def __init__(self, cache: KVCache, max_pages: int) -> None:
        self._cache = cache
        self._max_pages = max_pages
        self._root = _Node(None, (), Sequence())
        self._nodes: OrderedDict[tuple[int, tuple[int, ...]], _Node] = OrderedDict()  # least recently used first

    @property
    def pages(self) -> list[Sequence]:
        """What is kept, page by page."""
        return [node.page for node in self._nodes.values()]

    def n_known(self, ids: list[int]) -> int:
        """How many of the first ids are there."""
        return sum(n for _, n in self._find(ids))

    def lend(self, ids: list[int]) -> Sequence:
        """A sequence with as many of the first ids as are there, perhaps none."""
        found = self._find(ids)
        if found:
            self._touch(found[-1][0])
        return self._cache.join([node.page for node, _ in found], sum(n for _, n in found))

    def put(self, ids: list[int], sequence: Sequence) -> None:
        """Keep the pages of a prompt that has been read: ids are those of all positions of the sequence."""
        if len(ids) < LEAST_SHARED:
            return
        node = self._root
        for start in range(0, len(ids), PAGE):
            part = tuple(ids[start : start + PAGE])
            node = self._nodes.get((id(node), part)) or self._add(node, part, sequence, start // PAGE)
        self._touch(node)
        while len(self._nodes) > self._max_pages:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Let go of the page that was used least recently; False if there is none."""
        if not self._nodes:
            return False
        key, node = next((key, node) for key, node in self._nodes.items() if not node.children)
        if node.parent is not None and node in node.parent.children:
            node.parent.children.remove(node)
        del self._nodes[key]  # last, so that what was cut short is found again
        self._cache.truncate(node.page, 0)
        return True

    def clear(self) -> None:
        """Let go of all pages."""
        while self.drop_oldest():
            pass

    def _find(self, ids: list[int]) -> list[tuple[_Node, int]]:
        """The nodes that hold the first ids, and how many each has of them: whole pages, then perhaps a part of one."""
        found, node, start = [], self._root, 0
        while child := self._nodes.get((id(node), tuple(ids[start : start + PAGE]))):
            found.append((child, len(child.ids)))
            node, start = child, start + len(child.ids)
        rest = tuple(ids[start : start + PAGE])
        common = [(n_in_common(child.ids, rest), child) for child in node.children]
        n, best = max(common, key=lambda pair: pair[0], default=(0, node))
        return [*found, (best, n)] if n >= LEAST_SHARED else found

    def _add(self, parent: _Node, ids: tuple[int, ...], sequence: Sequence, number: int) -> _Node:
        node = _Node(parent, ids, self._cache.page_of(sequence, number, len(ids)))
        self._nodes[id(parent), ids] = node
        parent.children.append(node)
        return node

    def _touch(self, node: _Node) -> None:
        """Note that a chain of nodes was used, the last one first."""
        while node.parent is not None:
            self._nodes.move_to_end((id(node.parent), node.ids))
            node = node.parent
