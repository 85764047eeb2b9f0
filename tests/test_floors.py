"""Imports go downward only, within and between packages, and the bottom floor stays light.

The floors are declared once, in pyproject.toml under [tool.importlinter].
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cache", "teacher_serving", "student", "cluster", "benchmarks")
SOURCES = (*PACKAGES, "tests", "environment", "docs")
ROOMS = sorted({path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")})
MAX_MODULES = 12
MAX_LINES = 400


def test_every_import_goes_down_and_none_in_a_circle() -> None:
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_a_room_is_small(room: Path) -> None:
    modules = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES, modules


# numba's cache on disk does not notice a change in another file, so kernels that call each other share one.
LONG_FILES = {"teacher_serving/reduction/kernels.py"}


def test_files_are_short() -> None:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name for name, count in lines.items() if count > MAX_LINES} == LONG_FILES


def test_tests_mirror_the_rooms() -> None:
    """Every folder with tests has the path of a room, and every room of a package has such a folder."""
    tested = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")} - {Path()}
    rooms = {room.relative_to(ROOT) for room in ROOMS}
    assert not tested - rooms - {Path("docs"), Path("environment")}
    assert not {room for room in rooms if len(room.parts) == 2 and room.parts[0] != "benchmarks"} - tested


@pytest.mark.parametrize(
    "package, unloaded", [("cache", ["torch", "ray", "vllm", "transformers"]), ("teacher_serving", ["ray"])]
)
def test_importing_every_module_leaves_heavy_libraries_unloaded(package: str, unloaded: list[str]) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    ]
    code = f"import sys\nfor name in {modules}: __import__(name)\nprint([m for m in {unloaded} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip().splitlines()[-1] == "[]"
