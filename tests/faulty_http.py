"""An HTTP server on loopback whose answers can go wrong in the ways that real ones do."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyServer(ThreadingHTTPServer):
    """Serves `handler` from a thread, as a context manager.

    log: (method, path) of every request. headers: of the last request. status: kind of request -> status to answer.
    hang: kinds that are never answered. dropped: kinds whose connection is closed. cuts: how many bodies of files
    break off at half. ranges: whether `Range` is honoured. replaced: file name -> bytes that are sent in place of the
    content.
    """

    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.log, self.headers, self.status, self.hang, self.replaced = [], {}, {}, set(), {}
        self.cuts, self.ranges, self.dropped = 0, True, set()
        self.released = threading.Event()
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Broken connections are what the tests are about."""

    def requests(self, word):
        """Paths of the requests that contain `word`, other than the question whether anyone is there."""
        return [path for method, path in self.log if word in path]


class FaultyHandler(BaseHTTPRequestHandler):
    """Helpers for the handlers of both protocols."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        if self.begins("head"):
            self.answer(200, b"", {})

    def begins(self, kind):
        """Notes the request; False if it has been dealt with by a fault."""
        with self.server.lock:
            self.server.log.append((self.command, self.path))
            self.server.headers = self.headers
        if kind in self.server.hang:
            self.server.released.wait(30)
            self.close_connection = True
            return False
        if kind in self.server.dropped:
            self.connection.close()
            self.close_connection = True
            return False
        if kind in self.server.status:
            text = f"you sent {self.headers.get('Authorization')}".encode()
            status = self.server.status[kind]
            status, headers = status if isinstance(status, tuple) else (status, {})
            self.answer(status, text, headers)
            return False
        return True

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, name, content, headers):
        """A file, or its rest; cut, replaced or whole."""
        content = self.server.replaced.get(name, content)
        asked = self.headers.get("Range")
        status, start = 200, 0
        if self.server.ranges:
            headers = headers | {"Accept-Ranges": "bytes"}
            if asked:
                status, start = 206, int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        with self.server.lock:
            cut = self.server.cuts > 0 and len(content) > 1000
            self.server.cuts -= cut
        if not cut:
            self.answer(status, body, headers)
            return
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        time.sleep(0.05)
        self.connection.close()
        self.close_connection = True
