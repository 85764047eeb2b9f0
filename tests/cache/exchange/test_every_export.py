"""What holds for every export format: atomic output, and no sampled targets where the format has none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.exchange.axolotl import export_axolotl
from cache.exchange.distillkit import export_distillkit
from cache.exchange.parquet import export_parquet
from cache.rows.spec import TargetSpec
from tests.cache.store.sample_stores import SAMPLED, THRESHOLD, KilledError, make_store, stop_after


@pytest.mark.parametrize("export", [export_parquet, export_distillkit, export_axolotl])
def test_an_export_is_atomic(tmp_path: Path, export: Callable[..., Any]) -> None:
    source = make_store(tmp_path / "source", units=1)
    place = tmp_path / "exports" / "out"
    with pytest.raises(KilledError):
        export(source, place, progress=stop_after(1))
    assert list((tmp_path / "exports").iterdir()) == []
    export(source, place)
    before = {path: path.read_bytes() for path in (tmp_path / "exports").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="out: exists already"):
        export(source, place)
    assert before == {path: path.read_bytes() for path in (tmp_path / "exports").rglob("*") if path.is_file()}


@pytest.mark.parametrize("targets", [THRESHOLD, SAMPLED], ids=lambda spec: spec.mode)
def test_forms_without_draws_refuse_stores_that_have_them(tmp_path: Path, targets: TargetSpec) -> None:
    source = make_store(tmp_path / "source", targets, units=1)
    for export in (export_distillkit, export_axolotl):
        with pytest.raises(InputError, match=rf"{targets.mode} targets have sampled entries"):
            export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
