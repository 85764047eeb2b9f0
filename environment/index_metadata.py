"""Requirements of pinned packages as the package index declares them, read with pip. Nothing is installed."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from environment.install import TORCH_CPU_INDEX
from environment.locks import PLATFORMS, Package


class UnreadableError(RuntimeError):
    """pip cannot find a pinned package, or cannot read its requirements."""


def read_packages(text: str, python: str, other: Mapping[str, Package]) -> dict[str, Package]:
    """Every package that a lock's text pins, by canonical name.

    `other` are the packages of the same lock for another Python. PyTorch's CPU build declares the same requirements for
    each, so its entry stands in where pip reaches none for this Python. Raises UnreadableError.
    """
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    torch = [line for line in lines if line.startswith("torch==")]
    packages = _report([line for line in lines if line not in torch], python)
    if "+cpu" not in "".join(torch):
        return _by_name({**packages, **_report(torch, python)})
    for more in ([], ["--extra-index-url", TORCH_CPU_INDEX]):
        try:
            return _by_name({**packages, **_report(torch, python, more)})
        except UnreadableError as error:
            last = error
    if "torch" not in other:
        raise last
    print(f"lock: no index here has {torch[0]} for Python {python}; the file of another Python stands in", flush=True)
    return _by_name({**packages, "torch": other["torch"]})


def _report(lines: list[str], python: str, more: list[str] | None = None) -> dict[str, Package]:
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder) / "wanted.txt", Path(folder) / "report.json"
        wanted.write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        command += ["--disable-pip-version-check", "--retries", "1", "--target", folder, "--report", str(report)]
        # pip compares Requires-Python with the Python that runs it; `problems` in locks.py does with the lock's.
        command += ["--python-version", python, "--implementation", "cp", "--ignore-requires-python", *(more or [])]
        command += [part for platform in PLATFORMS for part in ("--platform", platform)]
        run = subprocess.run([*command, "-r", str(wanted)], capture_output=True, text=True, check=False)
        if run.returncode:
            raise UnreadableError(run.stderr.strip())
        return {
            canonicalize_name(item["metadata"]["name"]): _package(item)
            for item in json.loads(report.read_text())["install"]
        }


def _package(item: Mapping[str, Any]) -> Package:
    metadata = item["metadata"]
    file = item["download_info"]["url"].rpartition("/")[2].replace("%2B", "+")
    return Package(
        metadata["version"], file, metadata.get("requires_python", ""), tuple(metadata.get("requires_dist", ()))
    )


def _by_name(packages: Mapping[str, Package]) -> dict[str, Package]:
    return dict(sorted(packages.items()))
