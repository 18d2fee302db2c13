"""The playground in a real browser: what it shows is what the model in this process says."""

import json

import pytest
from folders import RECITED
from playground import (
    N_NEW,
    PROMPT,
    SEED,
    branches,
    choose,
    click,
    completed,
    content_of,
    fill,
    finish,
    link_of,
    link_with,
    needs_browser,
    open_page,
    percent,
    read,
    wait,
    write,
)
from servers import serving

import nbgpt

pytestmark = needs_browser
CONTROL, ENTER, ESCAPE, TAB = "\ue009", "\ue007", "\ue00c", "\ue004"
LEFT, RIGHT, DOWN, END = "\ue012", "\ue014", "\ue015", "\ue010"
KEY = "a key of this test"


def test_a_prompt_is_typed_counted_and_continued(window, url, story):
    assert open_page(window, url) == []
    window.run("(document.getElementById('prompt').value = '', document.getElementById('prompt').focus())")
    window.press(*PROMPT)
    n = len(story.encode(PROMPT))
    wait(window, f"document.getElementById('count').textContent === '{n} of 1024 tokens.'")
    fill(window, max_tokens=N_NEW, seed=SEED)
    window.run("window.seen = new Set()")
    watch = "new MutationObserver(() => seen.add(document.getElementById('text').children.length))"
    window.run(f"{watch}.observe(document.getElementById('text'), {{childList: true}})")
    window.press(ENTER, held=[CONTROL])
    text = "".join(finish(window))
    new = completed(story).text
    assert text == PROMPT + new
    assert window.run("seen.size") > 5  # it came bit by bit
    assert read(window, "status") == f"Wrote {N_NEW} tokens. Seed {SEED}."
    assert read(window, "heard") == new
    click(window, "#copy")  # which a browser may allow or not
    wait(
        window,
        "(document.getElementById('status').textContent + document.getElementById('error').textContent)"
        ".match(/Copied|does not let/)",
    )
    assert window.console() == []
    requests = window.requests(f"{url}/")
    assert len(requests) > 8
    assert all(one.startswith(f"{url}/") for one in requests)


def test_tokens_are_shaded_and_show_the_likeliest_in_their_place(window, url, story):
    open_page(window, url)
    write(window)
    echoed = completed(story, echo=True)
    shades = window.run("[...document.querySelectorAll('#text span')].map(span => span.style.backgroundColor)")
    assert len(shades) == len(echoed.logprobs)
    for shade, one in zip(shades, echoed.logprobs, strict=True):
        if one.logprob is None:
            assert shade == ""
            continue
        share = round(45 * min(1, -one.logprob / 6))
        assert any(f"{near}%" in shade for near in (share - 1, share, share + 1)), (shade, share)
    given = window.run("document.querySelectorAll('#text .given').length")
    assert given == len(echoed.logprobs) - N_NEW
    for place in (given + 2, 3):
        window.point("h1")
        window.point(f"#text span:nth-child({place + 1})")
        wait(window, "!document.getElementById('card').hidden")
        rows = window.run("[...document.querySelectorAll('#card button')].map(row => row.innerText.split('\\n'))")
        one = echoed.logprobs[place]
        expected = list(one.top.items()) + ([] if one.token in one.top else [(one.token, one.logprob)])
        visible = [
            story.tokenizer.decode([token], skip_special=False).replace(" ", "·").replace("\n", "⏎")
            for token, _ in expected
        ]
        assert rows == [[text, percent(logprob)] for text, (_, logprob) in zip(visible, expected, strict=True)]
        current = window.run("document.querySelector('#card [aria-current]').innerText.split('\\n')[1]")
        assert current == percent(one.logprob)
    window.point("h1")
    wait(window, "document.getElementById('card').hidden")
    assert window.console() == []


@pytest.mark.parametrize(
    "settings",
    [{"presence_penalty": 2, "frequency_penalty": 0.5}, {"mirostat_tau": 3}, {"typical_p": 0.3}, {"eta_cutoff": 0.5}],
)
def test_samplers(window, url, story, settings):
    open_page(window, url)
    assert "".join(write(window, **settings)) == PROMPT + completed(story, **settings).text
    assert window.console() == []


def test_branches(window, url, story):
    open_page(window, url)
    first = write(window)
    echoed = completed(story, echo=True)
    place, row = len(story.encode(PROMPT)) + 5, 3
    token = list(echoed.logprobs[place].top)[row]
    second = choose(window, place, row)
    ids = [*echoed.tokens[:place], token]
    assert "".join(second) == story.tokenizer.decode(ids[1:]) + completed(story, ids).text
    assert window.run(f"document.querySelectorAll('#text span')[{place}].className") == "forced"
    click(window, "#continue")
    third = finish(window)
    assert third[: len(second)] == second
    assert len(third) == len(second) + N_NEW
    forced = "[...document.querySelectorAll('#text .forced')].map(span => Number(span.dataset.place))"
    assert window.run(forced) == [place]  # also in a text that goes on
    assert branches(window) == 3
    assert window.run("document.querySelectorAll('#branches ul ul ul button').length") == 1

    click(window, "#branches button")  # the first one
    assert finish(window) == first
    click(window, "#undo")
    wait(window, f"document.querySelectorAll('#text span').length === {len(third)}")
    assert finish(window) == third
    for expected in (second, first):
        click(window, "#undo")
        wait(window, f"document.getElementById('text').textContent === {json.dumps(''.join(expected))}")
    click(window, "#undo")
    wait(window, "document.getElementById('text').hidden")
    assert window.run("document.getElementById('undo').disabled")
    assert branches(window) == 3  # nothing is lost
    assert window.console() == []


def test_keys_alone(window, url):
    open_page(window, url)
    write(window)
    window.run("document.getElementById('copy').focus()")
    window.press(TAB)
    assert window.run("document.activeElement.dataset.place") == "1"  # the first one that has a probability
    window.press(RIGHT, RIGHT, LEFT)
    assert window.run("document.activeElement.dataset.place") == "2"
    assert window.run("document.querySelectorAll('#text [tabindex=\"0\"]').length") == 1
    window.press(DOWN, DOWN)
    assert window.run("document.activeElement === document.querySelectorAll('#card button')[1]")
    window.press(ESCAPE)
    assert window.run("document.getElementById('card').hidden && document.activeElement.dataset.place") == "2"
    window.press(END, ENTER, DOWN, ENTER)
    wait(window, "document.querySelectorAll('#branches button').length === 2")
    finish(window)
    assert window.run("document.activeElement.className") == "forced"
    assert window.run("document.getElementById('card').hidden")
    assert window.console() == []


def test_another_model_ends_its_text_and_spreads_characters_over_tokens(window, url, reciting):
    open_page(window, url)
    fill(window, model="reciter")
    window.run("document.getElementById('model').dispatchEvent(new Event('change'))")
    assert read(window, "model-name").startswith("reciter, int8, nbgpt-")
    assert "".join(write(window, "a", max_tokens=100, temperature=0)) == "a" + RECITED
    assert "to the end of the text" in read(window, "status")

    model = nbgpt.load(reciting)
    options = {"max_tokens": 100, "seed": SEED, "temperature": 0}
    echoed = model.generate("a", echo=True, logprobs=8, **options)
    place, row, token = next(
        (place, row, token)
        for place, one in enumerate(echoed.logprobs)
        for row, token in enumerate(one.top)
        if "\ufffd" in model.tokenizer.decode([token])  # a part of a character
    )
    text = "".join(choose(window, place, row))
    assert text == model.generate([*echoed.tokens[:place], token], echo=True, **options).text
    assert window.run(f"document.querySelectorAll('#text span')[{place}].className").startswith("forced")
    assert window.console() == []


def test_what_is_refused_is_told(window, url):
    open_page(window, url)
    fill(window, model="reciter", prompt="x" * 200)
    click(window, "#write")
    wait(window, "document.getElementById('error').textContent.includes('context of 120 tokens')")
    fill(window, prompt=PROMPT, max_tokens=3, typical_p=2)
    click(window, "#write")  # the form knows that this is too large, and opens where it is
    assert window.run("document.activeElement.id") == "typical_p"
    assert window.run("document.getElementById('text').hidden")
    write(window, typical_p=1)
    assert read(window, "error") == ""
    assert window.console() == []

    link = link_of(window)
    steps = content_of(link)["steps"]
    open_page(window, link_with(link, steps=[*steps, {**steps[0], "at": 2, "token": [999_999, "what"]}]))
    wait(window, "document.getElementById('error').textContent.includes('999999')")
    assert branches(window) == 1  # what could be written
    assert all("400" in line for line in window.console())  # Chromium's own line about the answer


def test_explain(window, url, story):
    open_page(window, url)
    write(window)
    click(window, "#explain-tab")
    wait(window, "!document.getElementById('explain-frame').hidden")
    window.enter("#explain-frame")
    wait(window, "document.querySelectorAll('#tokens button').length > 0")
    n = len(story.encode(PROMPT)) + N_NEW
    assert window.run("document.querySelectorAll('#tokens button').length") == n
    assert window.run("document.querySelectorAll('#nexts i').length") == 10
    assert window.run("getComputedStyle(document.getElementById('tokens')).display") == "flex"  # its style is allowed
    window.leave()
    assert window.console() == []


def test_a_server_with_a_key(window, story):
    with serving(env={"NBGPT_API_KEY": KEY}) as server:
        window.open(server.url)
        wait(window, "!document.getElementById('key-form').hidden")
        for key in ("another", KEY):
            fill(window, key=key)
            click(window, "#key-form button")
        wait(window, "!document.getElementById('write').disabled")
        text = "".join(write(window))
        assert text == PROMPT + completed(story).text
        click(window, "#explain-tab")
        wait(window, "!document.getElementById('explain-frame').hidden")
        assert all("401" in line for line in window.console())
