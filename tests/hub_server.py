"""A small local server that speaks the paths of the Hugging Face hub which downloads use.

HEAD and GET `/OWNER/REPO/resolve/REVISION/FILE`, as the hub answers them: a weight file redirects to another host,
where it can be read in ranges; the redirect names its size and SHA-256. Anything else is an error with the hub's
own code in `X-Error-Code`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c0ffee" + "0" * 34
_LARGE = (".safetensors", ".bin")  # what the hub keeps apart from git


@dataclass
class Hub:
    """What the server holds and how it misbehaves; tests change it while it runs."""

    repos: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    cuts: int = 0  # so many answers with a weight file end half-way
    corrupt: bool = False  # weight files come with a wrong byte
    stall: threading.Event | None = None  # weight files stop half-way until it is set
    lies: dict[str, str] = field(default_factory=dict)  # headers that take the place of the right ones
    lies_to: str = "HEAD GET"  # methods whose answers have them
    is_endless: bool = False  # contents come without a size, and do not end
    drips: str = ""  # "headers" or "body": they come at 20 bytes a second
    pauses: list[int] = field(default_factory=list)  # each answers one GET with 429 and these seconds to wait
    requests: list[str] = field(default_factory=list)  # "GET /path" as they came
    ranges: list[str] = field(default_factory=list)  # the Range headers among them
    url: str = ""
    n_flowed: int = 0  # bytes of contents that did not end
    pause: threading.Event = field(default_factory=threading.Event)  # set when the server ends

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause.set()
        self._server.shutdown()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """Names of the files whose contents were asked for, in order."""
        return [line.split("/")[-1] for line in self.requests if line.startswith("GET ")]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        path = urlsplit(self.path).path  # a request to a proxy carries the whole URL
        self.hub.requests.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^/]+)", path):
            self.resolve(*match.groups())
        elif match := re.fullmatch(r"/store/([^/]+/[^/]+)/([^/]+)", path):
            self.send_large(self.hub.repos[match[1]][match[2]])
        else:
            self.answer(404, {"X-Error-Code": "NotFound"})

    do_GET = do_HEAD  # noqa: N815

    def resolve(self, repo: str, revision: str, name: str) -> None:
        if repo in self.hub.gated:
            return self.answer(401, {"X-Error-Code": "GatedRepo"})
        if repo not in self.hub.repos:
            return self.answer(401, {"X-Error-Code": "RepoNotFound"})  # the hub does not say which repos are private
        if revision not in ("main", COMMIT):
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": COMMIT}
        content = self.hub.repos[repo].get(name)
        if content is None:
            return self.answer(404, headers | {"X-Error-Code": "EntryNotFound"})
        if name.endswith(_LARGE):
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
            store = self.hub.url.replace("127.0.0.1", "localhost")
            return self.answer(302, headers | {"Location": f"{store}/store/{repo}/{name}"})
        git_blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return self.answer(200, headers | {"ETag": f'"{git_blob}"'}, content)

    def send_large(self, content: bytes) -> None:
        if self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        status, headers, start = 200, {}, 0
        if wanted := self.headers.get("Range"):
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status, headers = 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.answer(status, headers, content[start:], whole=False)

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"", whole: bool = True) -> None:
        if self.command in self.hub.lies_to:
            headers = headers | self.hub.lies
        if self.command == "GET" and self.hub.pauses:
            status, headers, body = 429, {"Retry-After": str(self.hub.pauses.pop())}, b""
        if self.hub.drips == "headers":
            return self.drip(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 10_000)
        if self.hub.is_endless and self.command == "GET":
            return self.flow()
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.drips == "body":
            return self.drip(body)
        half = len(body) // 2
        self.wfile.write(body[:half])
        if not whole and self.hub.cuts:
            self.hub.cuts -= 1
            self.close_connection = True
            return
        if not whole and self.hub.stall:
            self.wfile.flush()
            self.hub.stall.wait(30)
        self.wfile.write(body[half:])

    def drip(self, data: bytes) -> None:
        self.close_connection = True
        for byte in data:
            self.wfile.write(bytes([byte]))
            if self.hub.pause.wait(0.05):
                return

    def flow(self) -> None:
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while not self.hub.pause.is_set():
                self.wfile.write(b"100000\r\n" + b"{" * (1 << 20) + b"\r\n")
                self.hub.n_flowed += 1 << 20

    def log_message(self, *_: object) -> None:
        """Say nothing: `Hub.requests` is the log."""
