"""The committed generated pages say what the code and the result files say."""

from pathlib import Path

from docs.generate import commands, job_files, pages

ROOT = Path(__file__).resolve().parents[2]


def test_the_generated_pages_are_current() -> None:
    assert list(pages.outdated(ROOT)) == [], "run `python -m docs.generate`"


def test_every_key_of_a_job_file_is_on_its_page() -> None:
    text = job_files.page()
    for kind in job_files.jobs().values():
        for key in kind.model_fields:
            assert f"| `{key}` |" in text


def test_every_key_has_a_type_that_a_reader_knows() -> None:
    assert "Settings |" not in job_files.page()
    assert "typing." not in job_files.page()


def test_every_command_has_an_example() -> None:
    text = commands.page()
    assert text.count("## `logitbank ") == text.count("\nlogitbank ")


def test_every_key_has_a_description() -> None:
    rows = [line for line in job_files.page().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
