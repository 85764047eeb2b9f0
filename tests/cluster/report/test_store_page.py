"""The page of a store: charts of what it has, rates from the times of commits, the quarantine by reason."""

import os
from pathlib import Path

import numpy as np
import pytest

from cache.rows.spec import TargetSpec
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cluster.commands.main import main
from cluster.report.store_page import rows_over_time
from tests.student.training.ranks import TOPK, add_unit, make_store


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path) -> Path:
    return make_store(tmp_path / "store", tiny_model, TOPK, 19)


def test_the_page_shows_rates_lengths_and_the_quarantine(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_unit(store, 5)
    for number, commit in enumerate(sorted((store / "commits").iterdir())):
        os.utime(commit, (1e9 + 100 * number, 1e9 + 100 * number))
    opened = LogitStore.open(str(store))
    quarantine_example(opened.storage, "0" * 32, "chat-7", "391 tokens are more than <b>250</b>")
    quarantine_example(opened.storage, "1" * 32, "chat-8", "392 tokens are more than <b>250</b>")
    rates = rows_over_time(opened)
    assert rates is not None
    times, rows = rates
    assert times.tolist() == [0, 100] and rows.sum() == opened.index.rows.sum()
    assert main(["inspect", str(store), "--page", str(tmp_path / "pages/store.html")]) == 0
    page = (tmp_path / "pages/store.html").read_text()
    assert page.count("<svg") == 5 and "seconds since the first commit" in page
    assert "N tokens are more than" in page and "chat-7" in page and "<td>2</td>" in page
    assert "&lt;b&gt;250" in page and "<b>250" not in page, "texts of others are no HTML"
    assert "http" not in page.replace("http://www.w3.org", "")
    assert str(tmp_path / "pages/store.html") in capsys.readouterr().out


def test_a_copy_whose_commits_have_one_time_has_no_rate(store: Path) -> None:
    add_unit(store, 5)
    for commit in (store / "commits").iterdir():
        os.utime(commit, (1e9, 1e9))
    assert rows_over_time(LogitStore.open(str(store))) is None


def test_a_store_without_targets_has_a_page(tmp_path: Path, tiny_model: Path) -> None:
    bare = make_store(tmp_path / "bare", tiny_model, TargetSpec("topk", 0), 4)
    assert main(["inspect", str(bare), "--page", str(tmp_path / "page.html")]) == 0
    assert np.all(LogitStore.open(str(bare)).index.rows == 0)


def test_no_file_of_a_store_and_no_folder_is_overwritten(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (store / "spec.json").read_bytes()
    for path, message in {
        store / "spec.json": "ends in .html",
        store / "parts/page.html": "lies inside the store itself",
        tmp_path: "ends in .html",
    }.items():
        assert main(["inspect", str(store), "--page", str(path)]) == 2
        assert message in capsys.readouterr().err
    assert (store / "spec.json").read_bytes() == before and not list(tmp_path.glob("**/.*.tmp"))


def test_page_and_example_are_two_things(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(store), "--example", "a", "--page", str(tmp_path / "page.html")]) == 2
    assert "--example does not go with --page" in capsys.readouterr().err and not (tmp_path / "page.html").exists()
