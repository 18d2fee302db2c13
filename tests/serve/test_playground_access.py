"""The playground for everybody: phones, dark rooms, screen readers; and the description of the API."""

import shutil
import subprocess
import tarfile
import time

import pytest
from browser import HOSTILE
from playground import choose, click, finish, link_of, needs_browser, open_page, read, wait, write

pytestmark = needs_browser


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


def test_fingers_alone(window, url):
    open_page(window, url, width=390, height=800)
    write(window)
    window.touch("#text span:nth-child(12)")
    wait(window, "!document.getElementById('card').hidden")
    window.touch("#card p", by=-20)  # as one who scrolls the card
    time.sleep(0.5)  # longer than the card stays when a mouse has left it
    assert not window.run("document.getElementById('card').hidden")
    has_branched = "document.querySelectorAll('#branches button').length === 2"
    for _ in range(5):  # a tap that comes while the card still scrolls is none
        window.touch("#card button:nth-of-type(3)")
        time.sleep(1)
        if window.run(has_branched):
            break
    wait(window, has_branched)
    finish(window)
    assert window.run("document.querySelector('#text .forced').dataset.place") == "11"
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
    done = subprocess.run(
        [npm, "pack", "axe-core@4.14.1", "--fetch-retries=0"], cwd=folder, capture_output=True, text=True, check=False
    )
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
