"""Examples in an object store and on a hub: the same as in a folder of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from cache.errors import InputError
from cache.examples.files.input_files import find_files
from cache.examples.files.jsonl import parse_window
from cache.examples.files.windows import input_bytes, read_windows
from tests.cache.examples.files.test_windows import LINES, write
from tests.cache.exchange.hub import running_hub
from tests.cache.storage.conftest import (  # noqa: F401
    bucket_uri,
    credentials,
    running_server,
    server,
)
from tests.cache.storage.s3_faults import FaultyServer

ROOT = Path(__file__).resolve().parents[4]


def ids_of(location: str) -> list[str]:
    windows = list(read_windows(location, 70))
    assert windows[-1].bytes_read == input_bytes(location)
    return [example.response for window in windows for example in parse_window(window)]


@pytest.fixture
def bucket(server: FaultyServer, bucket_uri: str, tmp_path: Path) -> str:  # noqa: F811
    """An address with three files of examples and one of something else."""
    client = from_url(bucket_uri, client_options={"allow_http": True})
    for number, kind in enumerate((".jsonl", ".jsonl.gz", ".parquet")):
        obstore.put(client, f"part-{number}{kind}", write(tmp_path, kind).read_bytes())
    obstore.put(client, "notes.txt", b"not examples")
    return bucket_uri


def test_a_file_a_folder_and_a_pattern_in_a_bucket(bucket: str) -> None:
    texts = [str(i) for i in range(len(LINES))]
    for name in ("part-0.jsonl", "part-1.jsonl.gz", "part-2.parquet", "part-*.gz"):
        assert ids_of(f"{bucket}/{name}") == texts
    for folder in (bucket, f"{bucket}/", f"{bucket}/part-*"):
        assert ids_of(folder) == texts * 3
    assert [file.name for file in find_files(bucket)] == ["part-0.jsonl", "part-1.jsonl.gz", "part-2.parquet"]


def test_what_cannot_be_read_is_named(bucket: str, tmp_path: Path) -> None:
    for address, message in {
        f"{bucket}/nothing.jsonl": "no such file",
        f"{bucket}/nothing-*.jsonl": "no such file",
        "ftp://host/file.jsonl": "an address begins with s3://",
        "s3://key:secret@bucket/file.jsonl": "an address begins with s3://",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            find_files(address)
        assert "secret" not in str(error.value)


def test_a_data_set_on_a_hub(tmp_path: Path) -> None:
    """In a process of its own, because huggingface_hub reads the address of the hub when it is imported."""
    code = (
        "from tests.cache.examples.files.test_remote_files import LINES, ids_of\n"
        "texts = [str(i) for i in range(len(LINES))]\n"
        "assert ids_of('hf://datasets/me/data/part.jsonl') == texts\n"
        "assert ids_of('hf://datasets/me/data/*.parquet') == texts and ids_of('hf://datasets/me/data') == texts * 2\n"
    )
    with running_hub() as hub:
        hub.files = {f"part{kind}": write(tmp_path, kind).read_bytes() for kind in (".jsonl", ".parquet")}
        variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | variables | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert run.returncode == 0, run.stderr
