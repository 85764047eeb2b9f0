"""A stub of a data hub: it keeps the files of commits in memory, and answers what huggingface_hub asks."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

TOKEN = "hf_of_this_test"
SHA = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = re.compile(rf"(?:/datasets)?/me/data/resolve/(?:main|{SHA})/(.+)")


class Hub:
    """files: content by name, of the only data set or model. created: bodies of requests that make one."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.commits = 0
        self.address = ""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A stub on a free port."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", headers.get("length", str(len(body))))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _json(self, value: Any, status: int = 200) -> None:
            self._send(status, json.dumps(value).encode(), Content_Type="application/json")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlparse(self.path).path
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._json({"error": "Invalid username or password."}, 401)
            elif path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self._json({"url": f"{hub.address}/datasets/me/data"})
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [
                    {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for each in json.loads(body)["files"]
                ]
                self._json({"files": files})
            elif "/commit/" in path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    elif line["key"] == "deletedFile":
                        del hub.files[line["value"]["path"]]
                hub.commits += 1
                self._json(
                    {"success": True, "commitOid": SHA, "commitUrl": f"{hub.address}/datasets/me/data/commit/{SHA}"}
                )
            else:
                self._json({"error": f"stub: {self.path}"}, 404)

        def do_GET(self) -> None:
            path = unquote(urlparse(self.path).path).replace("/api/models/", "/api/datasets/")
            if path.startswith("/api/datasets/me/data/tree/"):
                self._json([{"type": "file", "path": n, "size": len(d), "oid": _oid(d)} for n, d in hub.files.items()])
            elif path.startswith("/api/datasets/me/data"):
                siblings = [{"rfilename": name} for name in hub.files]
                self._json({"id": "me/data", "sha": SHA, "siblings": siblings, "private": False, "tags": []})
            elif (match := RESOLVE.fullmatch(path)) and match[1] in hub.files:
                data = hub.files[match[1]]
                first, last = self.headers.get("Range", f"bytes=0-{len(data) - 1}").removeprefix("bytes=").split("-")
                part = data[int(first) : int(last or len(data)) + 1]
                status = 206 if "Range" in self.headers else 200
                self._send(status, part, ETag=f'"{_oid(data)}"', X_Repo_Commit=SHA, length=str(len(part)))
            else:
                self._json({"error": f"stub: {self.path}"}, 404)

        def do_HEAD(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
