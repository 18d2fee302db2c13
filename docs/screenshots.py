"""Take the pictures of the playground in docs/images, with Chromium: `python docs/screenshots.py`."""

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


def main() -> None:
    """Serve the embedded model and write each picture."""
    server = start("serve", "--port", 0)
    try:
        url = next(line.split("listening on ")[1].split()[0] for line in server.stderr if "listening on" in line)
        with tempfile.TemporaryDirectory() as profile, browser(profile) as window:
            for name, options in PICTURES.items():
                path = Path(__file__).parent / "images" / name
                path.write_bytes(take(window, url, **options))
                print(f"{path}: {path.stat().st_size} bytes")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
