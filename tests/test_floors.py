"""Imports go downward only, and the bottom floor stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"cache": 0, "teacher_serving": 1, "student": 1, "cluster": 2, "benchmarks": 3, "tests": 3}
# What a floor may not touch, whatever else changes.
FORBIDDEN = {
    "cache": {"torch", "ray", "vllm", "transformers", "deepspeed", "rdkit", "tokenizers"},
    "teacher_serving": {"ray", "deepspeed", "rdkit"},
    "student": {"ray", "vllm"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add((node.module or "").partition(".")[0])
    return found


def arrows() -> list[tuple[str, str, Path]]:
    return [
        (package, target, path)
        for package in FLOORS
        for path in (ROOT / package).rglob("*.py")
        for target in imports(path)
    ]


def test_no_import_runs_up_or_across() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {target}"
        for package, target, path in arrows()
        if target in FLOORS and target != package and FLOORS[target] >= FLOORS[package]
    ]
    assert not wrong


def test_no_floor_touches_what_belongs_above() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {target}"
        for package, target, path in arrows()
        if target in FORBIDDEN.get(package, set())
    ]
    assert not wrong


@pytest.mark.parametrize("package, unloaded", [("cache", ["torch", "ray", "vllm"]), ("teacher_serving", ["ray"])])
def test_importing_every_module_leaves_heavy_libraries_unloaded(package: str, unloaded: list[str]) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    ]
    code = f"import sys\nfor name in {modules}: __import__(name)\nprint([m for m in {unloaded} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip().splitlines()[-1] == "[]"
