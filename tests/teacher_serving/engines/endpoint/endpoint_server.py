"""Services on this machine: vLLM's own server, and one that fails in the ways that services do."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from teacher_serving.engines.vllm.process import process_environment

START_SECONDS = 120


@contextmanager
def vllm_server(model: Path, name: str, key: str, max_logprobs: int, log: Path) -> Iterator[str]:
    """vLLM's server for a model in float32; gives its base_url. It asks for `key`.

    Its module rather than `vllm serve`, which does not start from the CPU build: that has another package name.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "201"]
    command += ["--max-logprobs", str(max_logprobs), "--enforce-eager", "--no-enable-chunked-prefill"]
    environment = {**os.environ, **process_environment(1, on_gpu=False), "VLLM_API_KEY": key}
    with log.open("w") as file:
        server = subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_healthy(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"vllm serve did not start:\n{log.read_text()[-3000:]}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request as a service sees it. number: 0 for the first; turn: text of its last message."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def turn(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. status: 0 to close the connection without one."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def failing_service(reply: Callable[[Call], Reply]) -> Iterator[tuple[str, list[Call]]]:
    """A service that answers each call with `reply`; gives its address and the calls so far."""
    calls: list[Call] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                call = Call(len(calls), self.path, headers, body)
                calls.append(call)
            answer = reply(call)
            if not answer.status:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            is_text = isinstance(answer.body, str)
            data = answer.body.encode() if is_text else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            reply_headers = {"content-type": "text/html" if is_text else "application/json", **answer.headers}
            for name, value in {**reply_headers, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str, **choice: Any) -> Reply:
    """A chat completion as OpenAI writes it."""
    fields = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}
    return Reply(body={"choices": [fields], "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}})


def message(text: str, stop_reason: str = "end_turn") -> Reply:
    """A message as Anthropic writes it."""
    usage = {"input_tokens": 10, "output_tokens": 4}
    content = [{"type": "text", "text": text}] if text else []
    return Reply(body={"type": "message", "content": content, "stop_reason": stop_reason, "usage": usage})


def failure(status: int, text: str, **headers: str) -> Reply:
    """An error as OpenAI and Anthropic write it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": text, "type": "error"}}, named)
