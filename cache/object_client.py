"""How clients of object stores connect, for stores and for examples files."""

import os
from typing import Any

TIMEOUTS = {"connect_timeout": "5s", "timeout": "300s"}


def client_options() -> dict[str, Any]:
    """Options of obstore's clients. An endpoint without TLS is allowed where AWS_ENDPOINT_URL names one."""
    options: dict[str, Any] = dict(TIMEOUTS)
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["allow_http"] = True
    return options
