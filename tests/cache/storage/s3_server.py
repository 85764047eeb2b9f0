"""moto's S3 on a free port of this machine, which it prints; runs until it is killed.

One request at a time: moto looks whether an object exists and then writes it, so that under threads two writers could
both be told that they created it. Real services do not.
"""

import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

inner = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    with lock:
        body = inner(environ, start_response)
        try:
            return [b"".join(body)]
        finally:
            getattr(body, "close", lambda: None)()


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()
