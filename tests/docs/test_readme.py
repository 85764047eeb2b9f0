"""README.md stays short, and its figures and links are right."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_measured_figures_of_the_comparison_come_from_the_result_file() -> None:
    result = json.loads((ROOT / "benchmarks/results/store_k64_v151936.json").read_text())
    size = [line for line in README.splitlines() if line.startswith("| bytes a token |")]
    rate = [line for line in README.splitlines() if line.startswith("| random reading")]
    assert f"| {result['bytes_per_token']:.0f} (measured) |" in size[0]
    assert f"| {result['distillkit_bytes_per_token']:.0f} (codec alone, measured) |" in size[0]
    assert f"| {round(result['random_tokens_per_cpu_s'], -3):,.0f} (measured) |" in rate[0]
    assert f"| {round(result['distillkit_random_tokens_per_cpu_s'], -3):,.0f} (codec alone, measured) |" in rate[0]


def test_every_link_to_a_file_leads_somewhere() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_tree_names_every_room() -> None:
    rooms = [
        folder.name
        for package in ("cache", "teacher_serving", "student", "cluster")
        for folder in (ROOT / package).iterdir()
        if (folder / "__init__.py").is_file()
    ]
    missing = [room for room in rooms if f"{room}/" not in README]
    assert missing == []


def test_every_file_that_a_page_names_exists() -> None:
    packages = "cache|teacher_serving|student|cluster|tests|benchmarks|environment"
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/decisions.md", "docs/extend.md")]
    missing = [
        f"{page.name}: {path}"
        for page in pages
        for path in re.findall(rf"`((?:{packages})/[\w/.]+)`", page.read_text())
        if not (ROOT / path).exists() and "NAME" not in path
    ]
    assert missing == []
