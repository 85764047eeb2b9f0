"""How clients of object stores connect: for stores, for copies of runs, and for examples files."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from cache.errors import StoreError

TIMEOUTS = {"connect_timeout": "5s", "timeout": "300s"}
# Requests that fail are repeated, and requests that hang are given up, so that a wrong address fails within seconds.
RETRIES: Mapping[str, Any] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
INSTALL = "pip install 'obstore>=0.12'"


def client_options() -> dict[str, Any]:
    """Options of obstore's clients. An endpoint without TLS is allowed where AWS_ENDPOINT_URL names one."""
    options: dict[str, Any] = dict(TIMEOUTS)
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["allow_http"] = True
    return options


def require_address(uri: str, what: str) -> None:
    """Raise StoreError, which begins with `what`, for an address without a bucket, or with a password."""
    parts = urlsplit(uri)
    if not parts.netloc or parts.username or parts.password or parts.query:
        raise StoreError(f"{what}: expected an address such as s3://bucket/prefix")


def connect(uri: str, what: str, retries: Mapping[str, Any] = RETRIES) -> Any:
    """A client of obstore for an address, or for a folder as a file:// address, which is made.

    what: begins each message. Raises StoreError if obstore is missing or refuses the address, and for an address with
    a password: it would get into messages and files.
    """
    if not uri.startswith("file://"):
        require_address(uri, what)
    try:
        from obstore import store as stores
    except ImportError:
        raise StoreError(f"{what}: an object store needs obstore; {INSTALL}") from None
    try:
        if uri.startswith("file://"):
            return stores.from_url(uri, mkdir=True)
        make: Any = stores.from_url
        return make(uri, client_options=client_options(), retry_config=retries)
    except Exception as error:
        raise StoreError(f"{what}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error of a client says, without the details below."""
    return str(error).strip().partition("\n")[0][:300]


def without_secrets(uri: str) -> str:
    """The address without user, password and query, which may contain secrets. A path stays as it is."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
