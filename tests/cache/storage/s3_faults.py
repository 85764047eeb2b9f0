"""An S3 server in this process (moto's application on a port) that answers wrongly where a test wants it."""

import io
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

BUCKET = "bucket"
# What a request meets: it is lost before the server has it; it is done and its answer is lost; the service answers a
# conflict, a failed condition, an error, or that it is too busy, and does nothing.
FAULTS = ("request lost", "answer lost", "409", "412", "500", "503")
CODES = {
    "409": "ConditionalRequestConflict",
    "412": "PreconditionFailed",
    "500": "InternalError",
    "501": "NotImplemented",
    "503": "SlowDown",
}


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A connection that a test ended is no error."""


class _Handler(WSGIRequestHandler):
    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "test.connection": self.connection}

    def log_message(self, *_: Any) -> None:
        """Silent."""


class FaultyServer:
    """The application.

    fault: called with the method, the path and the condition (If-None-Match) of each request; returns one of FAULTS or
    a status of CODES, or None for a right answer. ignores_conditions: conditional writes replace what exists.
    requests: method and path of all requests so far.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.fault: Callable[[str, str, bool], str | None] = lambda method, path, conditional: None
        self.ignores_conditions = False
        self.requests: list[tuple[str, str]] = []
        self._inner = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()  # moto looks and then writes: without it two writers could both create an object

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with self._lock:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            if prefix := parse_qs(environ.get("QUERY_STRING", "")).get("prefix"):
                path = f"{path.rstrip('/')}/{prefix[0]}"  # of a listing
            self.requests.append((method, path))
            fault = self.fault(method, path, "HTTP_IF_NONE_MATCH" in environ)
            if fault == "request lost":
                _hang_up(environ)
            elif fault in CODES:
                start_response(f"{fault} {CODES[fault]}", [("Content-Type", "application/xml")])
                return [f"<Error><Code>{CODES[fault]}</Code><Message>no</Message></Error>".encode()]
            if self.ignores_conditions:
                environ.pop("HTTP_IF_NONE_MATCH", None)
            answer: list[Any] = []
            body = b"".join(self._inner(environ, lambda *each: answer.extend(each)))
            if fault == "answer lost":
                _hang_up(environ)
            start_response(*answer)
            return [body]


def _hang_up(environ: dict[str, Any]) -> None:
    """End the connection without an answer."""
    environ["test.connection"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


@contextmanager
def faulty_s3() -> Iterator[tuple[FaultyServer, str]]:
    """A server with an empty bucket, and its address."""
    app = FaultyServer()
    server = make_server("127.0.0.1", 0, app, _ThreadingServer, _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(urllib.request.Request(f"{address}/{BUCKET}", method="PUT")).close()
        yield app, address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
