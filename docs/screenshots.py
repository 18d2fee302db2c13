"""Take the pictures of the playground and of the explain page in docs/images: `python docs/screenshots.py`.

Needs Chromium with its driver. `python docs/screenshots.py explain` takes that one alone.
"""

import sys
import tempfile
import time
from base64 import b64decode
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser, browser  # noqa: E402
from command_line import start  # noqa: E402

PICTURES = {
    "playground.png": {"width": 1100, "height": 820},
    "playground-phone.png": {"width": 390, "height": 800, "scheme": "dark"},
}
EXPLAINED = "Once upon a time there was a girl named Lily. She had a dog named Max. One day, Lily and Max went to"
SETTINGS = {"prompt": "The ship went down, and", "max_tokens": 40, "seed": 7}


def until(window: Browser, condition: str) -> None:
    """Wait for an expression of the page to hold."""
    while not window.run(condition):
        time.sleep(0.05)


def take(window: Browser, url: str, **options: object) -> bytes:
    """Write a text, go on with another token, and point at one: a PNG."""
    window.open("about:blank")
    window.open(url, **options)
    until(window, "!document.getElementById('write').disabled")
    for name, value in SETTINGS.items():
        window.run(f"document.getElementById({name!r}).value = {value!r}")
    window.run("document.getElementById('prompt').dispatchEvent(new Event('input'))")
    until(window, "document.getElementById('count').textContent.startsWith('7 ')")
    is_written = "document.getElementById('stop').disabled && document.querySelector('#text .forced')"
    window.run("document.getElementById('write').click()")
    until(window, "document.getElementById('status').textContent.startsWith('Wrote')")
    window.run("document.querySelectorAll('#text span')[11].click()")
    window.run("document.querySelectorAll('#card button')[2].click()")
    until(window, is_written)
    window.run("document.querySelectorAll('#text span')[14].click()")
    return b64decode(window.screenshot())


def write(name: str, png: bytes) -> None:
    """Write a picture, and say how large it is."""
    path = Path(__file__).parent / "images" / name
    path.write_bytes(png)
    print(f"{path}: {len(png)} bytes")


def explained() -> None:
    """Write the picture of the explain page: its panels on attention."""
    with tempfile.TemporaryDirectory() as folder, browser(folder) as window:
        page = Path(folder) / "page.html"
        start("explain", EXPLAINED, "-o", page).wait()
        window.open(page.as_uri(), width=1100, height=1290)
        until(window, "document.documentElement.dataset.ready === 'true'")
        window.run("document.getElementById('attention-title').scrollIntoView()")
        time.sleep(0.5)  # scrolled
        write("explain.png", b64decode(window.screenshot()))


def main() -> None:
    """Write each picture."""
    explained()
    if sys.argv[1:] != ["explain"]:
        playground()


def playground() -> None:
    """Serve the embedded model and write each picture of its playground."""
    server = start("serve", "--port", 0)
    try:
        url = next(line.split("listening on ")[1].split()[0] for line in server.stderr if "listening on" in line)
        with tempfile.TemporaryDirectory() as profile, browser(profile) as window:
            for name, options in PICTURES.items():
                write(name, take(window, url, **options))
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
