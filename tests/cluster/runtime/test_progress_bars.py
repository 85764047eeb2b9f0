"""Bars end their line before an error is printed."""

from pathlib import Path

import pytest

from cluster.commands.main import main
from cluster.runtime.progress_bars import bar, close_bars, counter


def test_an_error_has_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = counter("reading", "B")
    shown(1, 100)
    assert main(["inspect", str(tmp_path / "nothing")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("logitbank: ") and "nothing" in lines[-1]
    assert any("reading" in line for line in lines[:-1])


def test_bars_are_closed_once(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = bar("one", 3, "units")
    drawn.update()
    close_bars()
    close_bars()
    assert capsys.readouterr().err.count("\n") == 1
