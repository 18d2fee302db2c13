"""A page that completes what you write: python examples/web_completer.py, then open http://127.0.0.1:8000.

Tab asks for the next words, which come as the model finds them; Escape stops it. Standard library and nbgpt alone.
"""

import argparse
import contextlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbgpt

PAGE = b"""<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>nbgpt</title>
<style>
  :root { color-scheme: light dark }
  body { font: 1.1rem/1.5 Georgia, serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  textarea { font: inherit; width: 100%; height: 60vh; box-sizing: border-box; padding: 1rem }
</style>
<p><label for="text">Write, press Tab to be continued, Escape to stop.</label></p>
<textarea id="text" autofocus>It was a dark and stormy night</textarea>
<script>
  const box = document.getElementById("text")
  let going = null
  box.addEventListener("keydown", async event => {
    if (event.key === "Escape" && going) going.abort()
    if (event.key !== "Tab" || going) return
    event.preventDefault()
    going = new AbortController()
    try {
      const body = JSON.stringify({ text: box.value })
      const answer = await fetch("/complete", { method: "POST", body, signal: going.signal })
      if (!answer.ok) throw answer.statusText
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
      for (let part = await reader.read(); !part.done; part = await reader.read()) box.value += part.value
    } catch (error) { if (error.name !== "AbortError") alert(error) }
    going = null
  })
</script>
"""


class Handler(BaseHTTPRequestHandler):
    model: nbgpt.Model

    def do_GET(self) -> None:
        self.begin("text/html; charset=utf-8")
        self.wfile.write(PAGE)

    def do_POST(self) -> None:
        try:
            length = min(int(self.headers["Content-Length"]), 1 << 20)
            text = json.loads(self.rfile.read(length))["text"]
            if not isinstance(text, str):
                raise TypeError("text must be a string")
            pieces = self.model.stream(text, max_tokens=40, overflow="truncate_left")
        except (ValueError, KeyError, TypeError) as error:
            self.send_error(400, str(error))
            return
        self.begin("text/plain; charset=utf-8")
        with contextlib.suppress(ConnectionError):  # the reader has gone, and the model stops with it
            for piece in pieces:
                self.wfile.write(piece.encode())

    def begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="file, folder or name; default: the embedded model")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free; default: %(default)s")
    options = parser.parse_args()
    Handler.model = nbgpt.load(options.model)
    with ThreadingHTTPServer(("127.0.0.1", options.port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
