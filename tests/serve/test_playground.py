"""The playground in a real browser: what it shows is what the model in this process says, and a link says it again."""

import json
import shutil
import subprocess
import tarfile
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import contextmanager
from math import exp

import pytest
from browser import CHROMIUM, DRIVER, HOSTILE, browser
from command_line import start
from folders import RECITED, reciter, write_text_model

import nbgpt

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver here: apt-get install chromium chromium-driver"
)
PATIENCE = 120  # seconds until a page that does not change has failed
PROMPT, SEED = "The ship went down, and", 7
CONTROL, ENTER, ESCAPE, TAB = "\ue009", "\ue007", "\ue00c", "\ue004"
LEFT, RIGHT, DOWN, END = "\ue012", "\ue014", "\ue015", "\ue010"
KEY = "a key of this test"
N_NEW = 24


@contextmanager
def serving(folder, *arguments, **options):
    """The address of a server."""
    log = folder / "log"
    with log.open("w") as stderr:
        process = start("serve", "--port", 0, *arguments, stderr=stderr, **options)
    try:
        deadline = time.monotonic() + PATIENCE
        while "listening on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield log.read_text().split("listening on ")[1].split()[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def reciting(tmp_path_factory):
    """A small model that ends its text, in which characters are spread over tokens."""
    return write_text_model(tmp_path_factory.mktemp("model") / "reciter.safetensors", *reciter(), "int8")


@pytest.fixture(scope="module")
def url(tmp_path_factory, reciting):
    with serving(tmp_path_factory.mktemp("log"), "--model", "story-34m", "--model", f"reciter={reciting}") as url:
        yield url


@pytest.fixture(scope="module")
def model():
    return nbgpt.load("story-34m")


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="module")
def other_window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("other profile")) as window:
        yield window


def wait(window, condition):
    deadline = time.monotonic() + PATIENCE
    while not window.run(condition):
        assert time.monotonic() < deadline, (condition, window.run("document.body.innerText"))
        time.sleep(0.02)


def read(window, name):
    return window.run(f"document.getElementById({name!r}).textContent")


def click(window, selector):
    window.run(f"document.querySelector({selector!r}).click()")


def fill(window, **values):
    for name, value in values.items():
        window.run(f"document.getElementById({name!r}).value = {json.dumps(value)}")


def open_page(window, url, **options):
    """Show the page, when it is ready."""
    window.open("about:blank")
    console = window.open(url, **options)
    wait(window, "!document.getElementById('write').disabled")
    return console


def finish(window):
    """Wait until a text is written -> its tokens, as they are shown."""
    wait(window, "document.getElementById('stop').disabled && document.querySelector('#text span')")
    return window.run("[...document.querySelectorAll('#text span')].map(span => span.textContent)")


def write(window, prompt=PROMPT, **settings):
    fill(window, prompt=prompt, **{"max_tokens": N_NEW, "seed": SEED, **settings})
    click(window, "#write")
    return finish(window)


def choose(window, place, row):
    """Go on with a token of the card of another one."""
    window.run(f"document.querySelectorAll('#text span')[{place}].click()")
    click(window, f"#card button:nth-of-type({row + 1})")
    return finish(window)


def link_of(window):
    click(window, "#share")
    return window.run("document.getElementById('link').value")


def branches(window):
    return window.run("document.querySelectorAll('#branches button').length")


def percent(logprob):
    p = exp(logprob)
    return f"{100 * p:.0f} %" if p >= 0.0995 else f"{100 * p:.1f} %" if p >= 0.001 else "< 0.1 %"


def completed(model, prompt=PROMPT, **options):
    return model.generate(prompt, **{"max_tokens": N_NEW, "seed": SEED, "logprobs": 8, **options})


def test_a_prompt_is_typed_counted_and_continued(window, url, model):
    assert open_page(window, url) == []
    window.run("(document.getElementById('prompt').value = '', document.getElementById('prompt').focus())")
    window.press(*PROMPT)
    n = len(model.encode(PROMPT))
    wait(window, f"document.getElementById('count').textContent === '{n} of 1024 tokens.'")
    fill(window, max_tokens=N_NEW, seed=SEED)
    window.run("window.seen = new Set()")
    watch = "new MutationObserver(() => seen.add(document.getElementById('text').children.length))"
    window.run(f"{watch}.observe(document.getElementById('text'), {{childList: true}})")
    window.press(ENTER, held=[CONTROL])
    text = "".join(finish(window))
    new = completed(model).text
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


def test_tokens_are_shaded_and_show_the_likeliest_in_their_place(window, url, model):
    open_page(window, url)
    write(window)
    echoed = completed(model, echo=True)
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
            model.tokenizer.decode([token], skip_special=False).replace(" ", "·").replace("\n", "⏎")
            for token, _ in expected
        ]
        assert rows == [[text, percent(logprob)] for text, (_, logprob) in zip(visible, expected, strict=True)]
        current = window.run("document.querySelector('#card [aria-current]').innerText.split('\\n')[1]")
        assert current == percent(one.logprob)
    window.point("h1")
    wait(window, "document.getElementById('card').hidden")
    assert window.console() == []


def test_branches(window, url, model):
    open_page(window, url)
    first = write(window)
    echoed = completed(model, echo=True)
    place, row = len(model.encode(PROMPT)) + 5, 3
    token = list(echoed.logprobs[place].top)[row]
    second = choose(window, place, row)
    ids = [*echoed.tokens[:place], token]
    assert "".join(second) == model.tokenizer.decode(ids[1:]) + completed(model, ids).text
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


def test_a_link_gives_the_same_text_in_another_browser(window, other_window, url, model):
    open_page(window, url)
    write(window, "Café 😀 \u2028 and", seed="", temperature=1.3, top_k=0, top_p=0.9, repetition_penalty=1.2)
    choose(window, 14, 2)
    click(window, "#continue")
    finish(window)
    text = choose(window, 30, 4)
    link = link_of(window)
    assert len({step["settings"]["seed"] for step in content_of(link)["steps"]}) == 4  # each had its own
    assert "every machine with FMA" in read(window, "link-panel")
    assert content_of(link)["fingerprint"] in read(window, "link-fingerprint")

    open_page(other_window, link)
    wait(other_window, "document.getElementById('status').textContent.startsWith('This is the text of the link')")
    assert finish(other_window) == text
    assert link_of(other_window) == link
    assert other_window.run("document.getElementById('warning').hidden")
    assert other_window.run("document.getElementById('temperature').value") == "1.3"
    assert other_window.run("document.getElementById('prompt').value") == "Café 😀 \u2028 and"
    assert other_window.console() == []


def content_of(link):
    data = link.split("#")[1]
    return json.loads(urlsafe_b64decode(data + "=" * (-len(data) % 4)))


def link_with(link, **changes):
    data = json.dumps(content_of(link) | changes).encode()
    return link.split("#")[0] + "#" + urlsafe_b64encode(data).decode().rstrip("=")


def test_a_link_of_another_model_is_warned_of(window, url):
    open_page(window, url)
    text = write(window)
    link = link_of(window)
    open_page(window, link_with(link, fingerprint="nbgpt-0", model=HOSTILE, checksum=1))
    wait(window, "document.getElementById('warning').textContent.includes('differs')")
    assert "nbgpt-0" in read(window, "warning")
    assert HOSTILE.split("\0")[0] in read(window, "warning")
    assert finish(window) == text
    assert window.run("window.broken") is None
    assert window.console() == []


@pytest.mark.parametrize("change", [{"steps": []}, {"prompt": 3}, {"version": 0}, {"steps": [{"at": 0}]}])
def test_a_damaged_link_is_told(window, url, change):
    open_page(window, url)
    write(window, max_tokens=1)
    link = link_of(window)
    for damaged in (link_with(link, **change), link[:-9], f"{url}/#%"):
        open_page(window, damaged)
        wait(window, "document.getElementById('error').textContent === 'this link is damaged: it holds no text'")
        assert window.run("document.getElementById('text').hidden")
    assert window.console() == []


def test_a_stopped_text_has_a_link_too(window, other_window, url):
    open_page(window, url)
    fill(window, prompt=PROMPT, max_tokens=1000, seed=SEED)
    click(window, "#write")
    wait(window, "document.querySelectorAll('#text span').length > 12")
    click(window, "#stop")
    text = finish(window)
    assert read(window, "status").startswith(
        f"Wrote {content_of(link_of(window))['steps'][0]['settings']['max_tokens']} "
    )
    assert "then stopped" in read(window, "status")
    open_page(other_window, link_of(window))
    wait(other_window, "document.getElementById('status').textContent.startsWith('This is the text of the link')")
    assert finish(other_window) == text
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
    fill(window, prompt=PROMPT, max_tokens=3, repetition_penalty=0.001)
    click(window, "#write")  # the form knows that this is too small
    assert window.run("document.querySelector('#settings :invalid').id") == "repetition_penalty"
    assert window.run("document.getElementById('text').hidden")
    write(window, repetition_penalty=1)
    assert read(window, "error") == ""
    assert window.console() == []

    link = link_of(window)
    steps = content_of(link)["steps"]
    open_page(window, link_with(link, steps=[*steps, {**steps[0], "at": 2, "token": [999_999, "what"]}]))
    wait(window, "document.getElementById('error').textContent.includes('999999')")
    assert branches(window) == 1  # what could be written
    assert all("400" in line for line in window.console())  # Chromium's own line about the answer


def test_explain(window, url, model):
    open_page(window, url)
    write(window)
    click(window, "#explain-tab")
    wait(window, "!document.getElementById('explain-frame').hidden")
    window.enter("#explain-frame")
    wait(window, "document.querySelectorAll('#tokens button').length > 0")
    n = len(model.encode(PROMPT)) + N_NEW
    assert window.run("document.querySelectorAll('#tokens button').length") == n
    assert window.run("document.querySelectorAll('#nexts i').length") == 10
    assert window.run("getComputedStyle(document.getElementById('tokens')).display") == "flex"  # its style is allowed
    window.leave()
    assert window.console() == []


def test_a_server_with_a_key(window, tmp_path, model):
    with serving(tmp_path, env={"NBGPT_API_KEY": KEY}) as url:
        window.open(url)
        wait(window, "!document.getElementById('key-form').hidden")
        for key in ("another", KEY):
            fill(window, key=key)
            click(window, "#key-form button")
        wait(window, "!document.getElementById('write').disabled")
        text = "".join(write(window))
        assert text == PROMPT + completed(model).text
        click(window, "#explain-tab")
        wait(window, "!document.getElementById('explain-frame').hidden")
        assert all("401" in line for line in window.console())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_fits(window, url, width, scheme):
    assert open_page(window, url, width=width, height=800, scheme=scheme) == []
    write(window, "x" * 300 + " " + HOSTILE)
    choose(window, 20, 1)
    link_of(window)
    window.run("document.querySelector('#text span:last-child').click()")
    assert window.run("document.documentElement.scrollWidth <= innerWidth")
    dark = window.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 21, 25)"
    assert dark == (scheme == "dark")
    box = window.run("JSON.parse(JSON.stringify(document.getElementById('card').getBoundingClientRect()))")
    assert box["left"] >= 0
    assert box["right"] <= width
    if width == 390:
        assert box["bottom"] == 800  # a sheet at the foot of the window
        token = window.run("document.querySelector('#text [aria-selected=true]').getBoundingClientRect().bottom")
        assert token <= box["top"]  # which does not cover what it is about
    assert window.run("window.broken") is None
    assert window.console() == []


def test_docs(window, url):
    assert window.open(f"{url}/docs", 390, 800) == []
    wait(window, "document.querySelector('details')")
    names = window.run("[...document.querySelectorAll('summary code')].map(code => code.textContent)")
    assert {"POST /v1/completions", "GET /v1/models", "POST /tokenize"} <= set(names)
    window.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert "divide the logits by T" in read(window, "routes")
    assert window.run("document.documentElement.scrollWidth <= innerWidth")
    assert window.run("!/undefined|\\[object/.test(document.body.textContent)")
    assert all(one.startswith(f"{url}/") for one in window.requests(f"{url}/docs"))
    assert window.console() == []


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source of axe-core, which checks a page for what keeps people out."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here, from which axe-core comes: apt-get install npm")
    done = subprocess.run([npm, "pack", "axe-core@4"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm has no axe-core for us: {done.stderr.strip().splitlines()[-1:]}")
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as package:
        return package.extractfile("package/axe.min.js").read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["new", "written", "linked", "explained", "docs"])
def test_accessibility(window, url, axe, scheme, state):
    open_page(window, url, scheme=scheme)
    if state == "docs":
        window.open(f"{url}/docs", scheme=scheme)
        wait(window, "document.querySelector('details')")
        window.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    elif state != "new":
        write(window)
        choose(window, 9, 1)
        window.run("document.querySelectorAll('#text span')[12].click()")
    if state == "linked":
        link_of(window)
    if state == "explained":
        click(window, "#explain-tab")
        wait(window, "!document.getElementById('explain-frame').hidden")
    assert findings(window, axe) == []


def findings(window, axe):
    """What axe-core finds that is serious or critical."""
    window.run(f"(() => {{ {axe} }})()")
    found = window.run("axe.run(document, {iframes: false}).then(({violations}) => violations)")
    return [
        (one["id"], [node["html"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_axe_would_find_something(window, url, axe):
    open_page(window, url)
    window.run("document.querySelector('label[for=prompt]').remove()")
    assert findings(window, axe)
