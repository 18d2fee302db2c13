"""A headless Chromium that tests drive by WebDriver (W3C): Debian's packages chromium and chromium-driver."""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

HOSTILE = (
    "</script><script>window.broken = 1</script><!-- <script> {{style}} \\u003c \\1 &lt; ' \" ` ${n} \0 \u202e \u2028"
)
"""A text that would break a page which does not escape it."""

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
_QUIET = ("disable-background-networking", "disable-component-update", "disable-quic", "disable-sync", "no-first-run")
_MARK = "so far"


class Browser:
    """One window."""

    def __init__(self, server: str, profile) -> None:
        arguments = ["headless", "no-sandbox", "disable-gpu", *_QUIET, f"user-data-dir={profile}"]
        options = {"binary": CHROMIUM, "args": arguments}
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self._session = f"{server}/session"
        session = self._ask("", {"capabilities": {"alwaysMatch": always}})
        self._session += f"/{session['sessionId']}"

    def _ask(self, path, body=None, method="POST"):
        data, kind = None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self._session + path, data, kind, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def _emulate(self, what, **parameters):
        self._ask("/goog/cdp/execute", {"cmd": f"Emulation.set{what}", "params": parameters})

    def open(self, url, width=1200, height=1000, scheme="light"):
        """Show a page in a window of this size -> lines of its console."""
        self._emulate("EmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._emulate("DeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self._ask("/url", {"url": url})
        return self.console()

    def emulate_media(self, feature, value):
        """Let the page's style sheet see a preference of the user."""
        self._emulate("EmulatedMedia", features=[{"name": feature, "value": value}])

    def console(self):
        """Lines since the last call; all of them, for they come in order and the last one is ours."""
        self.run(f"console.info({_MARK!r})")
        lines, deadline = [], time.monotonic() + 60
        while not (lines and _MARK in lines[-1]):
            assert time.monotonic() < deadline, lines
            time.sleep(0.01)
            lines += [f"{entry['level']} {entry['message']}" for entry in self._ask("/se/log", {"type": "browser"})]
        return lines[:-1]

    def requests(self, page):
        """Addresses that a page has asked for, its own among them."""
        events = [json.loads(entry["message"])["message"] for entry in self._ask("/se/log", {"type": "performance"})]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent if one["documentURL"] == page]

    def run(self, script):
        """The value of a JavaScript expression."""
        return self._ask("/execute/sync", {"script": f"return ({script})", "args": []})

    def wait(self, condition):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + 60
        while not self.run(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.02)

    def press(self, *keys, held=()):
        """Keys by their WebDriver codes or characters, to what has the focus, while others are held down."""
        presses = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        presses = [{"type": "keyDown", "value": key} for key in held] + presses
        presses += [{"type": "keyUp", "value": key} for key in held]
        self._ask("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})

    def _find(self, selector):
        return self._ask("/element", {"using": "css selector", "value": selector})

    def point(self, selector, x=0, y=0):
        """Move the mouse to an element, x and y pixels from its middle."""
        move = {"type": "pointerMove", "origin": self._find(selector), "x": x, "y": y, "duration": 0}
        self._ask("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def touch(self, selector, by=0):
        """Tap an element, or move it with a finger, so many pixels downwards."""
        at = {"type": "pointerMove", "origin": self._find(selector), "x": 0, "y": 0, "duration": 0}
        move = [{"type": "pointerMove", "origin": "pointer", "x": 0, "y": by, "duration": 50}] if by else []
        actions = [at, {"type": "pointerDown", "button": 0}, *move, {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": "finger", "parameters": {"pointerType": "touch"}, "actions": actions}
        self._ask("/actions", {"actions": [pointer]})

    def enter(self, selector):
        """Let what follows be about the document of a frame."""
        self._ask("/frame", {"id": self._find(selector)})

    def leave(self):
        """Let what follows be about the page again."""
        self._ask("/frame", {"id": None})

    def screenshot(self):
        """PNG in base64."""
        return self._ask("/screenshot", method="GET")

    def quit(self):
        self._ask("", method="DELETE")


@contextmanager
def browser(profile):
    """A browser whose profile lies in a folder."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        port = next(found[1] for line in driver.stdout if (found := re.search(r"success.* on port (\d+)", line)))
        window = Browser(f"http://127.0.0.1:{port}", profile)
        try:
            yield window
        finally:
            window.quit()
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
