"""What tests of clusters share: a bucket for this process and those that it starts."""

import uuid
from collections.abc import Iterator

import pytest

from tests.cache.storage.s3_faults import BUCKET, faulty_s3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an empty prefix in a bucket, for this process and those that it starts."""
    for module in ("moto", "flask", "flask_cors"):
        pytest.importorskip(module)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with faulty_s3() as (_, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield f"s3://{BUCKET}/{uuid.uuid4().hex}/store"
