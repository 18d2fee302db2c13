"""The page as text: what it carries, and that nothing in it can break out."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import HOSTILE
from folders import RECITED, write_random_model
from packing import unpacked

import nbgpt
from nbgpt.analysis.explain import MAX_TOKENS, page
from nbgpt.analysis.trace import STATISTICS


class Reader(HTMLParser):
    """The text of each element, and every attribute, as a browser finds them."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.attributes, self.open = [], [], None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.open = [tag, ""]
        self.texts.append(self.open)
        self.attributes += attributes

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open is not None:
            self.open[1] += data

    def all(self, tag):
        return [text for name, text in self.texts if name == tag]


def data_of(html):
    return json.loads(Reader(html).all("script")[0])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model") / "random.safetensors", n_ctx=400)


@pytest.fixture(scope="module")
def traced(path):
    return nbgpt.load(path, threads=1).trace(RECITED)


def test_the_page_carries_the_trace(traced):
    data = data_of(page(traced, "a model"))
    n_layer, n_head, n, _ = traced.attention.shape
    assert [data[name] for name in ("model", "n_layer", "n_head", "n_embd", "n_inner")] == ["a model", 2, 3, 48, 192]
    assert "".join(data["texts"][str(i)] for i in data["ids"]) == "".join(traced.tokens)
    np.testing.assert_array_equal(unpacked(data["next_ids"]), traced.lens_ids[-1])
    for name in STATISTICS:
        np.testing.assert_allclose(unpacked(data[name]), getattr(traced, name), rtol=2.5e-4)
    np.testing.assert_allclose(unpacked(data["next_probabilities"]), traced.lens_probabilities[-1], rtol=2.5e-4)
    assert data["block"] == 1
    shares = unpacked(data["attention"]).reshape(n_layer, n_head, -1)
    for i in range(n):
        row = shares[:, :, i * (i + 1) // 2 : (i + 1) * (i + 2) // 2]
        np.testing.assert_allclose(row / 255, traced.attention[:, :, i, : i + 1], rtol=0, atol=0.5 / 255 + 1e-6)


def test_the_page_names_the_activation(traced):
    html = page(replace(traced, config=replace(traced.config, activation="quick_gelu")))
    assert "by a bend at zero (quick_gelu)" in html


def test_nothing_comes_from_outside(traced):
    html = page(traced)
    addresses = re.findall(r"\w+://[^\s\"']+", html)
    assert set(addresses) == {"http://www.w3.org/2000/svg"}  # a name, which nobody asks for
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in Reader(html).attributes}
    assert not re.search(r"url\(|@import|\bimport\b|\bfetch\b|XMLHttpRequest|\beval\b|innerHTML", html)
    assert "default-src 'none'" in html
    assert "connect-src" not in html


def test_a_live_page_may_ask_its_server_and_nobody_else(traced):
    html = page(traced, live=True)
    assert "connect-src 'self'" in html
    assert len(re.findall(r"\bfetch\(", html)) == 1


def test_hostile_text_stays_text(path):
    model = nbgpt.load(path, threads=1)
    plain, hostile = page(model.trace("plain"), "plain"), page(model.trace(HOSTILE), HOSTILE)
    seen, expected = Reader(hostile), Reader(plain)
    assert [tag for tag, _ in seen.texts] == [tag for tag, _ in expected.texts]
    assert seen.attributes == expected.attributes
    assert [text for tag, text in seen.texts if tag not in ("title", "script")] == [
        text for tag, text in expected.texts if tag not in ("title", "script")
    ]
    assert seen.all("script")[1] == expected.all("script")[1]
    assert seen.all("title")[0].replace("\0", "") == f"What {HOSTILE} does with a text".replace("\0", "")
    data = data_of(hostile)
    assert data["model"] == HOSTILE
    assert [data["texts"][str(i)] for i in data["ids"]] == model.trace(HOSTILE).tokens


def test_what_makes_no_page(traced):
    long = replace(traced, ids=np.zeros(MAX_TOKENS + 1, np.int32))
    with pytest.raises(ValueError, match=f"{MAX_TOKENS + 1} tokens; a page shows at most {MAX_TOKENS}: shorten it"):
        page(long)
    norms = traced.norms.copy()
    norms[2, 3] = np.inf
    with pytest.raises(ValueError, match="the model's numbers overflow on this text"):
        page(replace(traced, norms=norms))


def contrast(one, other):
    """Of two colours by WCAG 2: 1 to 21."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (p / 255 for p in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    assets = Path(nbgpt.__file__).parent / "analysis" / "explain" / "assets"
    css, script = ((assets / name).read_text() for name in ("style.css", "data.js"))
    found = [dict(re.findall(r"--(\w+): #(\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]
    of = {name: np.frombuffer(bytes.fromhex(value), np.uint8).astype(float) for name, value in found[scheme].items()}
    share = int(re.search(r"Math.round\((\d+) \* p\)", script)[1]) / 100
    surest, most_surprising = (share * of[name] + (1 - share) * of["panel"] for name in ("blue", "orange"))
    for ink, ground in [
        *((of[ink], of[ground]) for ink in ("ink", "muted") for ground in ("paper", "panel")),
        (of["ink"], of["chosen"]),
        (of["ink"], surest),
        (of["ink"], most_surprising),
    ]:
        assert contrast(ink, ground) >= 4.5
    for mark in ("blue", "orange"):
        assert contrast(of[mark], of["panel"]) >= 3
