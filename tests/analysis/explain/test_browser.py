"""The page in a real browser: it renders without a word on the console, and says what the trace says."""

import numpy as np
import pytest
import reference
from browser import CHROMIUM, DRIVER, HOSTILE, browser
from folders import write_random_model

import nbgpt
from nbgpt.analysis.explain import page, switched_off

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver here: apt-get install chromium chromium-driver"
)
TEXT = "it was a dark and stormy night.\n\n\tNaïve café 😀 日本語"
LEFT, RIGHT, DOWN, HOME = "\ue012", "\ue014", "\ue015", "\ue011"
LABEL, MARGIN, LARGEST = 92, 6, 56  # matrix.js: pixels around the cells of a head, and of a cell at most


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return nbgpt.load(write_random_model(tmp_path_factory.mktemp("model") / "random.safetensors", bos=True), threads=1)


@pytest.fixture(scope="module")
def traced(model):
    return model.trace(TEXT)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes a page -> its address."""
    folder = tmp_path_factory.mktemp("pages")

    def write(html, name="page.html"):
        (folder / name).write_text(html, encoding="utf-8")
        return (folder / name).as_uri()

    return write


@pytest.fixture(scope="module")
def address(traced, write):
    return write(page(traced, "random float32"))


def opened(window, address, *args, **options):
    """Show a page and wait until it is drawn -> lines of its console."""
    lines = window.open(address, *args, **options)
    window.wait("document.documentElement.dataset.ready === 'true'")
    return lines + window.console()


def count(window, selector):
    return window.run(f"document.querySelectorAll({selector!r}).length")


def text(window, selector):
    return window.run(f"document.querySelector({selector!r}).innerText")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_renders(window, address, traced, width, scheme):
    assert opened(window, address, width, 900, scheme) == []
    assert window.requests(address) == [address]
    n_layer, n_head, n, _ = traced.attention.shape
    assert window.run("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    assert count(window, "#tokens button") == n
    assert count(window, "#heads canvas") == n_layer * n_head
    assert count(window, "#stream-chart circle") == count(window, "#stream-chart g > rect") == n_layer
    assert count(window, "#stream-chart path") == n
    for chart in ("#mean-chart", "#variance-chart"):
        assert count(window, f"{chart} circle") == 2 * (2 * n_layer + 1)
    assert count(window, "#numbers tbody tr") == 2 * n_layer + 1
    assert count(window, "#lens tbody td") == (n_layer + 1) * n
    assert count(window, "#nexts i") == 10
    assert count(window, "#switches button") == n_layer * (n_head + 1)
    assert count(window, "#arcs path.blue") >= 1
    assert window.run("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
    box = "getBoundingClientRect()"
    inside = f"t.{box}.left >= t.closest('svg').{box}.left && t.{box}.right <= t.closest('svg').{box}.right"
    assert window.run(f"[...document.querySelectorAll('svg text')].every(t => {inside})")
    assert window.run("!/NaN|undefined|Infinity/.test(document.body.outerHTML.split('<script')[0])")


def test_canvases_follow_the_scheme(window, address):
    corner = "[...document.querySelector('#heads canvas').getContext('2d').getImageData(0, 0, 1, 1).data]"
    top = "[...document.querySelector('#heads canvas').getContext('2d').getImageData(9, 0, 1, 1).data]"
    seen = {}
    for scheme in ("light", "dark"):
        opened(window, address, scheme=scheme)
        seen[scheme] = window.run(corner), window.run(top)
    assert seen == {
        "light": ([0x1F, 0x62, 0xC9, 255], [0xF1, 0xF2, 0xF4, 255]),
        "dark": ([0x7D, 0xB0, 0xFF, 255], [0x21, 0x23, 0x29, 255]),
    }


def test_it_says_what_the_trace_says(window, address, traced):
    opened(window, address)
    n = len(traced.ids)
    bits, rank = traced.surprisal[-1], traced.ranks[-1]
    surprise = f"{bits:.1f} bits of surprise, number {rank} of the predictions"
    assert text(window, "#current") == f"position {n - 1}: {visible(traced.tokens[-1])}, {surprise}"
    names = text(window, "#tokens").split("\n")
    assert names[::2] == [visible(token) for token in traced.tokens]
    assert names[1::2] == ["·", *map(str, traced.ranks[1:].tolist())]
    for position in (n - 1, 3):
        window.run(f"document.querySelectorAll('#tokens button')[{position}].click()")
        likeliest = [visible(traced.texts[i]) for i in traced.lens_ids[-1, position].tolist()]
        bars = text(window, "#nexts").split("\n")
        assert bars[::2] == likeliest
        for shown, p in zip(bars[1::2], traced.lens_probabilities[-1, position].tolist(), strict=True):
            assert percent_is(shown, p)
        column = f"[...document.querySelectorAll('#lens tbody tr')].map(row => row.cells[{position + 1}].innerText)"
        assert window.run(column) == [visible(traced.texts[i]) for i in traced.lens_ids[:, position, 0].tolist()]
        rows = "[...document.querySelectorAll('#numbers tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
        for place, row in enumerate(window.run(rows)):
            numbers = [float(cell) for cell in (*row[1:3], *row[4:])]
            names = ("norms", "added", "mean_before", "variance_before", "mean_after", "variance_after")
            expected = [getattr(traced, name)[place, position] for name in names]
            np.testing.assert_allclose(numbers, expected, rtol=0.06 if min(np.abs(expected)) < 1e-3 else 0.006)


def visible(token):
    """As explain.js shows a token."""
    pictures = {i: 0x2400 + i for i in range(32)} | {ord(" "): "·", ord("\n"): "⏎", ord("\t"): "⇥", 0x7F: "␡"}
    return token.translate(pictures) or "∅"


def percent_is(shown, p):
    """Is this how a share is written: whole per cents from 10 on, tenths below?"""
    value = float(shown.removeprefix("< ").removesuffix(" %"))
    return (p < 0.0011) if shown == "< 0.1 %" else abs(value - 100 * p) <= (0.51 if p >= 0.1 else 0.06)


def test_choosing_a_head_and_pointing_at_a_cell(window, address, traced):
    opened(window, address)
    layer, head, i, j = 1, 2, 9, 4
    window.run("document.querySelectorAll('#heads button')[5].click()")
    assert text(window, "#head-name") == f"Layer {layer}, head {head}"
    assert count(window, "#heads [aria-checked=true]") == 1
    width = window.run("document.getElementById('head').clientWidth")
    size = (width - LABEL - MARGIN) / len(traced.ids)
    assert size <= LARGEST
    x, y = (LABEL + (place + 0.5) * size - width / 2 for place in (j, i))
    window.point("#head", int(x), int(y))
    looks, _, rest = text(window, "#pair-title").partition(" takes ")
    share, _, looked_at = rest.partition(" from ")
    assert (looks, looked_at) == (f"{visible(traced.tokens[i])} ({i})", f"{visible(traced.tokens[j])} ({j})")
    assert percent_is(share, np.rint(255 * traced.attention[layer, head, i, j]) / 255)
    window.point("#head", int(y), int(x))  # the future: the pair stays
    assert text(window, "#pair-title").startswith(looks)
    strongest = int(traced.attention[layer, head, -1].argmax())
    assert text(window, "#looks").startswith(f"{visible(traced.tokens[strongest])} ({strongest})\n")


def test_it_opens_on_the_sharpest_head_and_says_why(window, address, traced):
    opened(window, address)
    sharp = {}
    for layer, head in np.ndindex(traced.attention.shape[:2]):
        rows = traced.attention[layer, head]
        sharp[layer, head] = np.mean([rows[i, 1 : i - 1].max() for i in range(3, len(rows))])
    layer, head = max(sharp, key=sharp.get)
    assert text(window, "#head-name") == f"Layer {layer}, head {head}"
    why = text(window, "#head-why")
    assert why.startswith("The page opened on this head, for it is the sharpest")
    assert percent_is(why.split("a token gives ")[1].split(" of its")[0], sharp[layer, head])


def number(shown):
    return float(shown.replace("−", "-"))


def test_a_product_is_taken_apart(window, address, traced):
    opened(window, address)
    window.run("document.querySelectorAll('#heads button')[4].click()")
    i, (layer, head) = len(traced.ids) - 1, (1, 1)
    j = int(traced.attention[layer, head, i].argmax())
    terms = traced.q[layer, head, i] * traced.k[layer, head, j] * traced.config.attention_scale(layer)
    said = text(window, "#pair-text").split("scaled: ")[1].split(",")[0]
    assert abs(number(said) - terms.sum()) < 0.01
    assert count(window, "#pair rect") == len(terms)
    rows = text(window, "#pair-bars").split("\n")
    order = np.argsort(-np.abs(terms))
    assert rows[0] == f"dimension {order[0]}"
    assert abs(number(rows[1]) - terms[order[0]]) < 0.01
    assert abs(sum(map(number, rows[1::2])) - terms.sum()) < 0.05


def test_shares_add_up_to_the_logit(window, address, model, traced):
    opened(window, address)
    window.run("document.querySelectorAll('#tokens button')[7].click()")
    logit = model.logits(traced.ids.tolist())[7, traced.ids[8]]
    total, _, terms = text(window, "#shares-sum").partition(" = ")
    assert abs(number(total) - logit) < 0.01
    amounts = [number(term) for term in terms.split() if term[0] in "+−"]
    assert len(amounts) == 4  # nothing is rounded in float32
    assert abs(sum(amounts) - logit) < 0.05
    choice = "document.getElementById('shares-less')"
    window.run(f"({choice}.value = 1, {choice}.dispatchEvent(new Event('change')))")
    ids = [int(i) for i in traced.lens_ids[-1, 7] if i != traced.ids[8]]
    difference = logit - model.logits(traced.ids.tolist())[7, ids[0]]
    assert abs(number(text(window, "#shares-sum").partition(" = ")[0]) - difference) < 0.01


def test_a_part_is_switched_off(window, write, model, traced):
    ablations = switched_off(model.engine, model.tokenizer, traced)
    opened(window, write(page(traced, ablations=ablations), "switches.html"))
    n_head = traced.config.n_head
    for part, name in ((n_head + 1, "layer 1, head 0"), (n_head, "layer 0, MLP")):
        window.run(f"document.querySelectorAll('#switches button')[{part}].click()")
        title = text(window, "#without-title")
        assert title.startswith(f"Without {name}, after ")
        assert abs(number(title.split(": ")[-1].split()[0]) - ablations.divergence[part]) < 0.002
        assert count(window, "#switches [aria-pressed=true]") == 1
        column = "[...document.querySelectorAll('#without tbody tr')].map(r => r.cells[2].firstChild.innerText)"
        assert window.run(column) == [visible(ablations.texts[i]) for i in ablations.ids[part].tolist()]
    window.run(f"document.querySelectorAll('#switches button')[{n_head}].click()")
    assert text(window, "#without-title").startswith("With all parts")


def test_the_way_of_a_token_is_made_of_its_numbers(window, address, traced):
    """The bars of a step are the numbers of the channels, by the scale that the page states."""
    opened(window, address)
    points = traced.stream[:, -1].astype(np.float64)
    bars = "[...document.querySelectorAll('#way-bars i')].map(bar => +bar.style.transform.slice(7, -1))"
    gain, bias = (traced.weights.floats(f"h.0.ln_1.{name}")[:48] for name in ("weight", "bias"))
    normed = reference.layer_norm(points[:1], gain, bias, traced.config.layer_norm_epsilon)[0]
    for step, values in {0: points[0], 3: normed, 4: points[1] - points[0], 5: points[1], 8: points[2]}.items():
        window.run(f"document.querySelectorAll('#way-steps button')[{step}].click()")
        limit = number(text(window, "#way-scale").split("to +")[1].split(";")[0].rstrip("."))
        np.testing.assert_allclose(window.run(bars), np.clip(values / limit, -1, 1), atol=0.02, err_msg=str(step))
    assert text(window, "#way-name") == "9. The stream leaves the layer"
    window.run("document.getElementById('way').focus()")
    window.press(RIGHT)
    assert text(window, "#way-name").startswith("1.")
    assert window.run("document.getElementById('way-layer').value") == "1"


def test_motion_is_reduced_where_it_is_not_wanted(window, address):
    opened(window, address)
    duration = "getComputedStyle(document.querySelector('#way-bars i')).transitionDuration"
    assert window.run(duration) == "0.9s"
    window.emulate_media("prefers-reduced-motion", "reduce")
    try:
        assert window.run(duration) == "0s"
    finally:
        window.emulate_media("prefers-reduced-motion", "no-preference")


def test_keys(window, address, traced):
    opened(window, address)
    n = len(traced.ids)
    shown = "[...document.querySelectorAll('#tokens button')].findIndex(b => b.classList.contains('shown'))"
    window.run("document.querySelector('#tokens [aria-checked=true]').focus()")
    window.press(LEFT, LEFT, RIGHT)
    assert window.run(shown) == n - 2
    window.press(HOME, LEFT)
    assert window.run(shown) == 0
    window.run("document.querySelector('#heads [aria-checked=true]').focus()")
    window.press(RIGHT, DOWN)
    assert text(window, "#head-name") == "Layer 1, head 1"
    assert window.run("document.activeElement.ariaLabel") == "layer 1, head 1"
    assert count(window, "#tokens button[tabindex='0'], #heads button[tabindex='0']") == 2
    window.run("document.getElementById('next').click()")
    assert text(window, "#current").startswith("position 1:")


def test_pointing_at_a_token_shows_it_for_the_while(window, address, traced):
    opened(window, address)
    window.point("#tokens button:nth-child(3)")
    assert text(window, "#current").startswith("position 2:")
    window.point("h1")
    assert text(window, "#current").startswith(f"position {len(traced.ids) - 1}:")


@pytest.mark.parametrize("position", [0, 5, -1])
def test_the_lens_scrolls_to_the_token(window, address, traced, position):
    opened(window, address, width=390)
    at = position % len(traced.ids)
    for first in (len(traced.ids) - 1, 0):
        for chosen in (first, at):
            window.run(f"document.querySelectorAll('#tokens button')[{chosen}].click()")
        box = "getBoundingClientRect()"
        row = "document.getElementById('lens').rows[0]"
        left, right = window.run(f"[{row}.cells[{at + 1}].{box}.left, {row}.cells[{at + 1}].{box}.right]")
        assert left >= window.run(f"{row}.cells[0].{box}.right") - 1
        assert right <= window.run(f"document.getElementById('lens').parentElement.{box}.right") + 1


def test_hostile_text(window, model, write):
    hostile = model.trace(HOSTILE)
    assert opened(window, write(page(hostile, HOSTILE), "hostile.html")) == []
    assert window.run("window.broken === undefined && document.scripts.length === 2")
    assert count(window, "#tokens button") == len(hostile.ids)
    assert HOSTILE.split("<!--")[0] in text(window, "#about")


@pytest.mark.parametrize("n", [1, 2, 150])
def test_other_lengths(window, model, write, n):
    traced = model.trace(" the" * n, bos=False)
    assert opened(window, write(page(traced), f"{n}.html"), width=390) == []
    assert count(window, "#tokens button") == n
    assert window.run("document.documentElement.scrollWidth <= innerWidth")


def test_an_error_would_be_noticed(window, address, traced, write):
    """What the tests above rely on: a thrown error and a request that the page's policy forbids are on the console."""
    html = page(traced)
    broken = html.replace("\nstart();", "\nstart(); throw new Error('on purpose');")
    assert [line for line in opened(window, write(broken, "broken.html")) if "on purpose" in line]
    calling = html.replace("\nstart();", "\nstart(); new Image().src = 'http://127.0.0.1:9/x.png';")
    assert [line for line in opened(window, write(calling, "calling.html")) if "Content Security Policy" in line]
    assert opened(window, address) == []
