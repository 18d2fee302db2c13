"""Draw the pictures of docs/how-it-works.md from what the embedded model computes: `python docs/pictures.py`.

The colours are those of the explain page; a dark page gets the dark ones.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import nbgpt
from nbgpt.engine.kv_cache import Sequence

TEXT = "The king rode to the castle. The queen waited for the"
LAYER = 4  # whose neurons are shown
IMAGES = Path(__file__).parent / "images"
_STYLE = """\
svg { --paper: #fdfdfc; --ink: #1b1c1f; --muted: #585d66; --rule: #d5d8dd; --blue: #1f62c9; --orange: #b34a00; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #141519; --ink: #e9eaec; --muted: #a4a9b3; --rule: #3a3d45; --blue: #7db0ff; --orange: #ffa45c; }
}
text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.small { fill: var(--muted); font-size: 12px; }
.paper, .on-blue { fill: var(--paper); }
.grid { stroke: var(--rule); fill: none; }
.line { fill: none; stroke: var(--ink); stroke-width: 2; }
.blue { fill: var(--blue); }
.orange { fill: var(--orange); }
.blue-line { fill: none; stroke: var(--blue); stroke-width: 2; }
.box { fill: var(--paper); stroke: var(--muted); stroke-width: 1.5; }
"""


def save(name: str, width: int, height: int, label: str, parts: Iterable[str]) -> None:
    """Write one picture without references to other files."""
    path = IMAGES / f"{name}.svg"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{html.escape(label)}">\n<style>\n{_STYLE}</style>\n'
        f'<rect class="paper" width="{width}" height="{height}"/>\n{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )
    print(f"{path}: {path.stat().st_size} bytes")


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle", turned: bool = False) -> str:
    """Words at a place."""
    turn = f' transform="rotate(-45 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn} xml:space="preserve">'
        f"{html.escape(words)}</text>\n"
    )


def bar(x: float, y: float, width: float, height: float, kind: str, opacity: float = 1) -> str:
    """A rectangle."""
    faint = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{faint}/>\n'


def line(points: Iterable[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>\n'


def token(word: str) -> str:
    """A token as the pictures show it: a space is seen."""
    return word.replace(" ", "·").replace("\n", "⏎") or "start"


def block(config: nbgpt.config.GPT2Config) -> None:
    """The residual stream with the two branches of a layer."""
    sizes = f"{config.n_embd} numbers a token"
    parts = [
        line([(30, 150), (770, 150)], "line"),
        text(30, 175, "x", anchor="start"),
        text(770, 175, "x, next layer", anchor="end"),
    ]
    for left, name, norm, inside in (
        (110, "attention", "ln_1", f"{config.n_head} heads, {config.n_embd // config.n_head} numbers each"),
        (440, "MLP", "ln_2", f"{config.n_embd} → {config.n_inner} → {config.n_embd}"),
    ):
        parts += [
            line([(left, 150), (left, 60), (left + 240, 60), (left + 240, 138)], "line"),
            f'<rect class="box" x="{left - 30}" y="90" width="60" height="34" rx="4"/>',
            text(left, 112, norm),
            f'<rect class="box" x="{left + 40}" y="34" width="176" height="52" rx="4"/>',
            text(left + 128, 56, name),
            text(left + 128, 75, inside, "small"),
            f'<circle class="box" cx="{left + 240}" cy="150" r="12"/>',
            text(left + 240, 155, "+"),
        ]
    parts.append(text(400, 205, f"the residual stream: {sizes}, through {config.n_layer} layers", "small"))
    save("block", 800, 225, "a layer of a GPT-2", parts)


def stream(trace: nbgpt.Trace) -> None:
    """Norms at each point of the last token: what each part adds, and the sum so far."""
    norms, added = trace.norms[:, -1], trace.added[:, -1]
    scale, step, floor = 200 / norms.max(), 40, 250
    parts = [line([(40, floor), (760, floor)], "grid")]
    for point, length in enumerate(added.tolist()):
        x, kind = 60 + step * point, "blue" if point % 2 else "orange"
        parts.append(bar(x, floor - length * scale, 24, length * scale, kind if point else "line"))
        parts.append(text(x + 12, floor - length * scale - 5, f"{length:.0f}", "small"))
        if point % 2:
            parts.append(text(x + 32, floor + 18, f"layer {point // 2}", "small"))
    parts.append(line([(72 + step * i, floor - norm * scale) for i, norm in enumerate(norms.tolist())], "line"))
    parts += [
        text(72, floor + 18, "embedding", "small"),
        bar(60, 14, 12, 12, "blue"),
        text(78, 25, "added by attention", anchor="start"),
        bar(220, 14, 12, 12, "orange"),
        text(238, 25, "added by the MLP", anchor="start"),
        line([(378, 20), (402, 20)], "line"),
        text(408, 25, f"the sum so far; its length at the end is {norms[-1]:.0f}", anchor="start"),
    ]
    save("stream", 800, 285, "what each part adds to the residual stream", parts)


def normed(trace: nbgpt.Trace) -> None:
    """The standard deviation of the last token's channels, before and after each LayerNorm."""
    before, after = np.sqrt(trace.variance_before[:, -1]), np.sqrt(trace.variance_after[:, -1])
    scale, step, floor = 190 / max(before.max(), after.max()), 43, 240
    parts = [
        line([(40, floor), (770, floor)], "grid"),
        bar(60, 14, 12, 12, "orange"),
        text(78, 25, "standard deviation of the stream's channels", anchor="start"),
        bar(380, 14, 12, 12, "blue"),
        text(398, 25, "of what the LayerNorm makes of them", anchor="start"),
    ]
    for point, (wide, narrow) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        x = 50 + step * point
        name = "ln_f" if point == len(before) - 1 else f"{point // 2}.ln_{point % 2 + 1}"
        parts += [
            bar(x, floor - wide * scale, 15, wide * scale, "orange"),
            bar(x + 17, floor - narrow * scale, 15, narrow * scale, "blue"),
            text(x + 8, floor - wide * scale - 4, f"{wide:.1f}", "small"),
            text(x + 16, floor + 18, name, "small"),
        ]
    save("layernorm", 790, 275, "the stream before and after each LayerNorm", parts)


def attention(trace: nbgpt.Trace) -> None:
    """The weights of the head whose last token looks most at one token between the first and itself."""
    seen = trace.attention[:, :, -1, 1:-2].max(axis=-1)
    layer, head = (int(i) for i in np.unravel_index(seen.argmax(), seen.shape))
    weights, words, size = trace.attention[layer, head], [token(word) for word in trace.tokens], 30
    words[0] = "start"
    left, top, n = 110, 110, len(words)
    parts = [
        text(left, 22, f"layer {layer}, head {head}: each row is a token, its weights have the sum 1", anchor="start")
    ]
    for i, word in enumerate(words):
        parts.append(text(left - 8, top + size * i + 20, word, anchor="end"))
        parts.append(text(left + size * i + 12, top - 8, word, anchor="start", turned=True))
        for j in range(i + 1):
            parts.append(bar(left + size * j, top + size * i, size - 2, size - 2, "blue", float(weights[i, j])))
            if weights[i, j] >= 0.3:
                shown, kind = f"{weights[i, j] * 100:.0f}", "on-blue" if weights[i, j] > 0.5 else ""
                parts.append(text(left + size * j + 14, top + size * i + 19, shown, kind))
    for i in range(n):
        parts.append(line([(left, top + size * i - 1), (left + size * n, top + size * i - 1)], "grid"))
    save("attention", left + size * n + 60, top + size * n + 10, "attention weights of one head", parts)


def gelu(model: nbgpt.Model, ids: list[int], before: np.ndarray) -> None:
    """The curve, and the outputs of all neurons of a layer for the last token, in their order."""
    sequence = Sequence()
    neurons = np.sort(model.engine.run_layers(sequence, ids, (LAYER, LAYER + 1), before)["inner"][-1])
    model.engine.free(sequence)
    xs = np.linspace(-4, 4, 81)
    ys = 0.5 * xs * (1 + np.tanh(math.sqrt(2 / math.pi) * (xs + 0.044715 * xs**3)))
    parts = [
        line([(20, 210), (340, 210)], "grid"),
        line([(180, 30), (180, 230)], "grid"),
        line([(180 + 40 * x, 210 - 42 * y) for x, y in zip(xs.tolist(), ys.tolist(), strict=True)], "blue-line"),
        text(330, 228, "4", "small"),
        text(30, 228, "-4", "small"),
        text(192, 42, "4", "small"),
        text(20, 20, "GELU", anchor="start"),
    ]
    scale, n_active = 160 / float(neurons.max()), int((neurons > 0.1).sum())
    about = f"layer {LAYER}: {n_active} of {len(neurons)} neurons above 0.1, the largest {neurons.max():.1f}"
    places = 400 + 370 * np.arange(len(neurons)) / len(neurons)
    parts += [
        line([(400, 210), (770, 210)], "grid"),
        line([(x, 210 - scale * y) for x, y in zip(places.tolist(), neurons.tolist(), strict=True)], "blue-line"),
        text(400, 20, about, anchor="start"),
        text(585, 235, "neurons, sorted by their output", "small"),
    ]
    save("gelu", 790, 250, "GELU and the neurons of a layer", parts)


def lens(trace: nbgpt.Trace) -> None:
    """The three likeliest next tokens after each layer, at the last position."""
    n_layer, top, row = trace.config.n_layer, 40, 30
    parts = [text(20, 22, f"after “{TEXT}”: the three likeliest next tokens", anchor="start")]
    for layer in range(n_layer + 1):
        y = top + row * layer
        parts.append(text(130, y + 19, f"after layer {layer - 1}" if layer else "the embedding", "small", "end"))
        for k in range(3):
            word, p = trace.texts[int(trace.lens_ids[layer, -1, k])], float(trace.lens_probabilities[layer, -1, k])
            x = 150 + 205 * k
            parts.append(bar(x, y, max(1, 195 * p), row - 6, "blue", 0.45))
            parts.append(text(x + 6, y + 17, f"{token(word)}  {p * 100:.0f} %", anchor="start"))
    save("lens", 790, top + row * (n_layer + 1) + 10, "the logit lens", parts)


def main() -> None:
    """Draw all of them."""
    with nbgpt.load() as model:
        ids, trace = model.encode(TEXT), model.trace(TEXT)
        states = model.hidden_states(TEXT, layer=LAYER)
        block(model.config)
        stream(trace)
        normed(trace)
        attention(trace)
        gelu(model, ids, states)
        lens(trace)


if __name__ == "__main__":
    main()
