"""A store in the tokens of another tokenizer: what an alignment at every read gives, written once."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.errors import InputError, LogitbankError, SpecMismatchError, StoreError
from cache.examples.example import Example
from cache.examples.tokenizers import tokenizer_digest, tokenizer_files
from cache.rendering.prompt_form import CLOCK, PromptForm
from cache.rendering.render import render
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.claims.tokenizer_files import claim_tokenizer
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.withdrawal.forgotten import mark_forgotten
from cluster.alignment import driver
from cluster.alignment.driver import run_alignment
from cluster.alignment.units import align_unit
from cluster.report.results import capture_totals
from student.data.settings import DataSettings
from student.data.sources import StoreSource
from student.losses.settings import LossSettings
from student.tokenizers.bpe import learn_tokenizer, save_tokenizer
from student.tokenizers.cross_tokenizer_store import CrossTokenizerStore
from student.training.planning.planner import plan_training
from student.training.planning.stores import OpenStores
from tests.student.tokenizers.test_cross_tokenizer import PADDING, record
from tests.student.training.ranks import settings_of

ROOT = Path(__file__).resolve().parents[3]
FORM = PromptForm()
TARGETS = TargetSpec("topk", 16)
UNITS, UNIT = 7, 30
WORDS = "one two three red blue left right up down and or naïve – 漢字 🙂 seven eleven twelve"


def texts(count: int) -> list[Example]:
    rng = np.random.default_rng(1)

    def words(least: int, most: int) -> str:
        return " ".join(rng.choice(WORDS.split(), rng.integers(least, most)))

    return [
        Example(str(i), ({"role": "user", "content": f"say {i} {words(1, 6)}"},), response=words(1, 20))
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A store of several units, of which one example is forgotten and one in quarantine, and a student's tokenizer."""
    root = tmp_path_factory.mktemp("alignment")
    teacher: Any = AutoTokenizer.from_pretrained(tiny_model)
    vocab = len(teacher) + PADDING
    spec = StoreSpec("teacher", "w", tokenizer_digest(teacher), "c", vocab, len(teacher), "float32", TARGETS, None)
    storage, rng = LocalStorage(root / "store"), np.random.default_rng(0)
    create_store(storage, spec)
    claim_tokenizer(storage, spec, tokenizer_files(teacher))
    examples = texts(UNITS * UNIT + 2)
    records = [record(rng, render(example, teacher), vocab) for example in examples]
    for unit in range(UNITS):
        write_unit(storage, spec, records[unit * UNIT : (unit + 1) * UNIT])
    mark_forgotten(storage, [records[UNIT].key], "asked for")
    quarantine_example(
        storage, records[-1].key, records[-1].tokenized.example.id, "too long", "2026-11-27T00:00:00+00:00"
    )
    take_snapshot(storage)
    learned = learn_tokenizer(examples, 500)
    save_tokenizer(learned, root / "student")
    return root


def student(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder / "student")


def align(folder: Path, target: Path, **options: Any) -> driver.AlignmentResult:
    return run_alignment(str(folder / "store"), str(target), student(folder), FORM, **options)


def require_equal(one: LogitStore, other: LogitStore) -> None:
    assert len(one) == len(other) and one.spec.fingerprint == other.spec.fingerprint
    assert {one.key(i) for i in range(len(one))} == {other.key(i) for i in range(len(other))}
    places = {other.key(i): i for i in range(len(other))}
    for i in range(0, len(one), 11):
        mine, theirs = one[i], other[places[one.key(i)]]
        assert np.array_equal(mine.tokenized.tokens, theirs.tokenized.tokens)
        assert np.array_equal(mine.targets.offsets, theirs.targets.offsets)
        assert np.allclose(mine.targets.logprobs, theirs.targets.logprobs, atol=1e-6)


@pytest.fixture(scope="module")
def aligned(folder: Path) -> Path:
    result = align(folder, folder / "aligned")
    assert result.examples == result.aligned == UNITS * UNIT - 1
    assert result.shares.tokens > 5 * result.examples and result.shares.exact > result.shares.masked
    return folder / "aligned"


def test_rows_are_those_of_an_alignment_at_every_read(folder: Path, aligned: Path) -> None:
    """But for the steps of the store, in which each of its values is rounded once more."""
    store = LogitStore.open(str(folder / "store"))
    view = CrossTokenizerStore(store, store.load_tokenizer(), student(folder))
    written = LogitStore.open(str(aligned))
    assert written.spec.fingerprint == view.spec.fingerprint != store.spec.fingerprint
    assert written.spec.aligned == {"from": store.spec.fingerprint, "has_encoder": False}
    places = {written.key(i): i for i in range(len(written))}
    compared = 0
    for i in range(len(store)):
        if store.key(i) not in places:
            continue
        mine, record = written[places[store.key(i)]], view[i]
        window = record.window
        assert mine.tokenized.example == record.tokenized.example
        assert np.array_equal(mine.tokenized.tokens, window.tokens)
        assert np.array_equal(mine.tokenized.segments, window.segments)
        assert np.array_equal(mine.targets.offsets, window.targets.offsets)
        for row in range(len(window.tokens)):
            part = slice(*window.targets.offsets[row : row + 2])
            wanted = dict(zip(window.targets.ids[part].tolist(), window.targets.logprobs[part].tolist(), strict=True))
            found = dict(zip(mine.targets.ids[part].tolist(), mine.targets.logprobs[part].tolist(), strict=True))
            assert found.keys() == wanted.keys()
            for token, value in wanted.items():
                compared += 1
                assert found[token] == pytest.approx(value, abs=TARGETS.tail_step)
    assert compared > 10_000
    assert view.sizes.shares.tokens > 0 and len(places) == len(store) == UNITS * UNIT - 1


def test_a_training_reads_it_as_its_own(folder: Path, aligned: Path) -> None:
    """The same sizes, in an order of its own. Would catch a store that a student with this tokenizer refuses."""
    store = LogitStore.open(str(folder / "store"))
    view = CrossTokenizerStore(store, store.load_tokenizer(), student(folder))
    written = LogitStore.open(str(aligned))
    assert tokenizer_digest(written.load_tokenizer()) == tokenizer_digest(student(folder)) == written.spec.tokenizer
    loss = LossSettings(objective="forward_kl")
    sources = [
        StoreSource(each, DataSettings.model_validate({"store": str(folder / "store")}), loss)
        for each in (view, written)
    ]
    assert sorted(sources[0].tokens.tolist()) == sorted(sources[1].tokens.tolist())
    assert sources[0].form == sources[1].form


def test_many_workers_write_the_same(folder: Path, aligned: Path) -> None:
    """Would catch units that are written twice, left out, or with the rows of another unit."""
    result = align(folder, folder / "parallel", workers=2)
    assert result.aligned == UNITS * UNIT - 1
    one, other = LogitStore.open(str(aligned)), LogitStore.open(str(folder / "parallel"))
    require_equal(one, other)
    assert len(other.index.unit) == UNITS


@pytest.mark.parametrize("failing", range(UNITS + 1))
def test_an_alignment_goes_on_after_every_point_of_failure(
    folder: Path, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Before each unit, and before the snapshot. Would catch units that are lost or done again."""
    done: list[int] = []
    real_unit, real_snapshot = align_unit, take_snapshot

    def unit(*arguments: Any) -> Any:
        if len(done) == failing:
            raise OSError("no more")
        done.append(len(arguments[1]))
        return real_unit(*arguments)

    def snapshot(*arguments: Any) -> Any:
        raise OSError("no more")

    monkeypatch.setattr(driver, "align_unit", unit)
    monkeypatch.setattr(driver, "take_snapshot", snapshot)
    with pytest.raises(OSError, match="no more"):
        align(folder, tmp_path / "cut")
    monkeypatch.setattr(driver, "align_unit", real_unit)
    monkeypatch.setattr(driver, "take_snapshot", real_snapshot)
    seen: list[tuple[int, int]] = []
    result = align(folder, tmp_path / "cut", progress=lambda *at: seen.append(at))
    assert result.aligned == result.examples - sum(done) and len(done) == failing
    assert not seen or seen[-1] == (result.examples, result.examples)
    require_equal(LogitStore.open(str(aligned)), LogitStore.open(str(tmp_path / "cut")))
    assert align(folder, tmp_path / "cut").aligned == 0


def test_what_is_forgotten_stays_out_and_the_quarantine_is_copied(folder: Path, aligned: Path) -> None:
    store, written = LogitStore.open(str(folder / "store")), LogitStore.open(str(aligned))
    assert {written.key(i) for i in range(len(written))} == {store.key(i) for i in range(len(store))}
    assert written.info().quarantined == 1
    assert f"aligned from   {store.spec.fingerprint}" in str(written.info())


def test_a_template_keeps_the_day_of_its_first_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch an alignment that cannot be continued on the next day."""
    dated = student(folder)
    dated.chat_template = (
        "{{ strftime_now('%d %B') }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    )
    assert CLOCK in dated.chat_template
    for day in ("2026-11-27", "2026-11-28"):
        monkeypatch.setattr(driver, "today", lambda day=day: day)
        run_alignment(str(folder / "store"), str(tmp_path / "dated"), dated, FORM)
    written = LogitStore.open(str(tmp_path / "dated"))
    assert written.spec.template_date == "2026-11-27"
    assert "27 November" in dated.decode(written[0].tokenized.tokens)


def test_refusals_leave_nothing_behind(folder: Path, tmp_path: Path, tiny_model: Path) -> None:
    source, target = str(folder / "store"), tmp_path / "target"
    with pytest.raises(InputError, match="is the source itself"):
        run_alignment(source, source, student(folder), FORM)
    with pytest.raises(InputError, match="lies inside the store itself"):
        run_alignment(source, f"{source}/inner", student(folder), FORM)
    with pytest.raises(InputError, match="has other files and no store"):
        run_alignment(source, str(folder), student(folder), FORM)
    with pytest.raises(InputError, match=r"1\.2\.3\.4"):
        run_alignment(source, str(target), student(folder), FORM, workers=2, address="1.2.3.4:99")
    with pytest.raises(InputError, match="the chat template does not use this variable"):
        run_alignment(source, str(target), student(folder), PromptForm({"enable_thinking": False}))
    with pytest.raises(LogitbankError, match="profile 'small'"):
        run_alignment(source, str(target), student(folder), FORM, profile="small")  # type: ignore[arg-type]
    store = LogitStore.open(source)
    sampled = replace(store.spec, targets=TargetSpec("threshold", threshold=0.01))
    create_store(LocalStorage(tmp_path / "sampled"), sampled)
    claim_tokenizer(LocalStorage(tmp_path / "sampled"), sampled, tokenizer_files(store.load_tokenizer()))
    take_snapshot(LocalStorage(tmp_path / "sampled"))
    with pytest.raises(StoreError):
        run_alignment(str(tmp_path / "sampled"), str(target), student(folder), FORM)
    assert not target.exists()


def test_a_target_of_another_tokenizer_is_refused(folder: Path, aligned: Path, tiny_model: Path) -> None:
    with pytest.raises(SpecMismatchError, match="tokenizer"):
        run_alignment(str(folder / "store"), str(aligned), AutoTokenizer.from_pretrained(tiny_model), FORM)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cluster.commands.main", "--root", str(folder), "align", "store"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )

    told = run(str(tmp_path / "new"), "--tokenizer", "student", "--workers", "1", "--json")
    assert told.returncode == 0, told.stderr
    facts = json.loads(told.stdout)
    assert facts["examples"] == facts["aligned"] == UNITS * UNIT - 1
    assert sum(facts["tokens"].values()) > 5 * facts["examples"] and facts["bytes_per_token"] > 0
    again = run(str(tmp_path / "new"), "--tokenizer", "student", "--workers", "1")
    assert again.returncode == 0 and f"align: {UNITS * UNIT - 1:,} examples" in again.stdout
    for wrong in (("--tokenizer", "none"), ("--tokenizer", "student", "--workers", "0")):
        refused = run(str(tmp_path / "other"), *wrong)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert run(str(tmp_path / "other"), "--tokenizer", "student", "--chat-template-kwargs", "[1]").returncode == 2
    assert not (tmp_path / "other").exists()


def test_a_store_for_the_other_kind_of_student_is_refused(folder: Path, aligned: Path, tmp_path: Path) -> None:
    """Would catch a T5 that learns from prompts without the end token that its tokenizer adds."""
    run_alignment(str(folder / "store"), str(tmp_path / "for_encoder"), student(folder), PromptForm(has_encoder=True))
    t5 = {"config": {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}}
    for store, model, other in ((aligned, t5, "without"), (tmp_path / "for_encoder", {}, "with")):
        settings = settings_of(tmp_path / "run", store, model=model)
        with pytest.raises(SpecMismatchError, match=f"was aligned for students {other} an encoder"):
            plan_training(settings, OpenStores())
    plan_training(settings_of(tmp_path / "run", aligned), OpenStores())
    plan_training(settings_of(tmp_path / "other", tmp_path / "for_encoder", model=t5), OpenStores())


def test_a_report_needs_no_log_of_a_capture(aligned: Path) -> None:
    """An aligned store has none: nothing was asked of a teacher."""
    totals = capture_totals(str(aligned))
    assert totals["rows"] > 1000 and totals["tokens_per_s"] == 0 and totals["job"]["aligned"]
