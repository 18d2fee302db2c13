"""What the tests of the playground do in a browser."""

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from math import exp

import pytest
from browser import CHROMIUM, DRIVER
from servers import PATIENCE

PROMPT, SEED, N_NEW = "The ship went down, and", 7, 24

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver here: apt-get install chromium chromium-driver"
)


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


def content_of(link):
    data = link.split("#")[1]
    return json.loads(urlsafe_b64decode(data + "=" * (-len(data) % 4)))


def link_with(link, **changes):
    data = json.dumps(content_of(link) | changes).encode()
    return link.split("#")[0] + "#" + urlsafe_b64encode(data).decode().rstrip("=")
