"""A server that fails where a test wants it, and the environment of its clients."""

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest

from cache.storage import object_store
from tests.cache.storage.s3_faults import BUCKET, FaultyServer, faulty_s3

SECRET = "d0-not-tell-this"


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{SECRET}-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture(scope="session")
def running_server() -> Iterator[tuple[FaultyServer, str]]:
    for module in ("moto", "flask", "flask_cors", "obstore"):
        pytest.importorskip(module)
    with faulty_s3() as server:
        yield server


@pytest.fixture
def server(
    running_server: tuple[FaultyServer, str], credentials: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyServer]:
    """A server without faults; requests that fail are repeated at once, and once only."""
    app, address = running_server
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=1), "base": 2}
    monkeypatch.setattr(object_store, "RETRIES", {**object_store.RETRIES, "max_retries": 1, "backoff": backoff})
    monkeypatch.setattr(object_store, "CONFLICT_WAITS", (0.0, 0.0, 0.0))
    yield app
    app.fault = lambda method, path, conditional: None
    app.ignores_conditions = False
    app.requests.clear()


@pytest.fixture
def bucket_uri() -> str:
    """Address of an empty prefix."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"
