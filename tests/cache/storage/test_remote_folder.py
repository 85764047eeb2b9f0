"""Files at an address that are written again: in a folder and in a bucket."""

from pathlib import Path

import pytest

from cache.errors import StoreError
from cache.storage.remote_folder import PIECE_BYTES, RemoteFolder
from tests.cache.storage.conftest import SECRET
from tests.cache.storage.s3_faults import FaultyServer


@pytest.fixture(params=["folder", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "a folder" / "mirror")
    request.getfixturevalue("server")
    return str(request.getfixturevalue("bucket_uri"))


def test_a_file_is_replaced_and_read_as_it_was_written_last(address: str) -> None:
    files = RemoteFolder(address)
    assert files.read("a/b.json") is None and files.tail("a/b.json", 3) == b"" and files.sizes("a") == {}
    for data in (b"first", b"", b"the second"):
        files.write("a/b.json", data)
        assert files.read("a/b.json") == data
    assert files.tail("a/b.json", 6) == b"second" and files.tail("a/b.json", 100) == b"the second"
    files.write("ab/c", b"1")
    assert files.sizes("a") == {"a/b.json": 10}, "names that only begin alike are not below the folder"
    files.remove([])
    files.remove(["a/b.json", "a/absent"])
    assert files.sizes("a") == {} and files.sizes("ab") == {"ab/c": 1}


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_files_of_any_size_go_there_and_back(address: str, tmp_path: Path, size: int) -> None:
    """Also those that are sent in pieces, and over a file that exists."""
    files, source, target = RemoteFolder(address), tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes((b"0123456789abcde" * (size // 15 + 1))[:size])
    files.write("big", b"before")
    files.upload("big", source)
    assert files.sizes("") == {"big": size}
    for _ in range(2):
        files.download("big", target)
        assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_what_is_missing_or_refused_is_named(address: str, tmp_path: Path) -> None:
    files = RemoteFolder(address)
    with pytest.raises(StoreError, match="absent: cannot be read"):
        files.download("absent", tmp_path / "new" / "target")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(StoreError, match="x: cannot be written"):
        files.upload("x", tmp_path / "no such file")


def test_an_error_of_the_service_is_one_line_without_secrets(server: FaultyServer, bucket_uri: str) -> None:
    files = RemoteFolder(bucket_uri)
    server.fault = lambda method, path, conditional: "501"
    for call in (lambda: files.write("x", b""), lambda: files.read("x"), lambda: files.sizes("x")):
        with pytest.raises(StoreError, match=f"{bucket_uri}/x: cannot be") as error:
            call()
        assert "\n" not in str(error.value) and SECRET not in str(error.value)
    with pytest.raises(StoreError) as error:
        RemoteFolder(f"strange://user:{SECRET}@bucket/x")
    assert SECRET not in str(error.value)


def test_a_very_long_file_has_as_many_pieces_as_s3_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 MiB each it could have 156 GiB; an optimizer in one file may have more. The file is a hole."""
    folder, asked = RemoteFolder(str(tmp_path / "remote")), []

    class Client:
        def put(self, name: str, path: Path, chunk_size: int) -> None:
            asked.append(chunk_size)

    monkeypatch.setattr(folder, "_client", Client())
    for size in (1, 10_000 * (16 << 20), 400 << 30):
        with (tmp_path / "long").open("wb") as file:
            file.truncate(size)
        folder.upload("long", tmp_path / "long")
        assert -(-size // asked[-1]) <= 10_000
    assert asked[:2] == [16 << 20] * 2
