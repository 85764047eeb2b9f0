"""Nothing is left out, cut or too long for the model without a count or an error before the first step."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cluster.commands.main import main
from cluster.training.driver import make_plan, summary
from student.data.settings import DataSettings
from student.tokenizers.bpe import learn_tokenizer, save_tokenizer
from student.training.planning.inputs import open_inputs
from student.training.planning.plan import TrainingPlan
from student.training.planning.stores import OpenStores
from student.training.settings import TrainSettings
from tests.student.models.test_special_students import CLASSES, COMPACT, graded, store_of
from tests.student.training.ranks import TOPK, make_store, settings_of

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}
BART = {"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "decoder_start_token_id": 0}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
CLASSIFIER: dict[str, Any] = {"tokenizer": {"vocab_size": 300}, "classes": CLASSES}


def plan_of(settings: TrainSettings) -> TrainingPlan:
    return make_plan(settings, OpenStores())


def test_a_row_takes_every_example_that_max_tokens_allows() -> None:
    """Would catch an example that fits no row, at the step that meets it."""
    assert DataSettings(store="s").max_tokens == 2048
    assert DataSettings(store="s", pack_to=4096).max_tokens == 4096
    assert DataSettings(store="s", pack_to=1024).max_tokens == 1024
    assert DataSettings(store="s", pack_to=1024, max_tokens=512).max_tokens == 512
    with pytest.raises(
        ValidationError, match="max_tokens = 2048 allows examples that are longer than a row of pack_to"
    ):
        DataSettings(store="s", pack_to=1024, max_tokens=2048)
    again = DataSettings.model_validate(DataSettings(store="s", pack_to=1024).model_dump())
    assert (again.pack_to, again.max_tokens) == (1024, 1024)


@pytest.mark.parametrize("pack_to", [None, 12])
def test_the_plan_counts_what_is_too_long(tmp_path: Path, tiny_model: Path, pack_to: int | None) -> None:
    """Training and held-out examples by one limit: max_tokens, or the row if that is not given."""
    store, heldout = (make_store(tmp_path / name, tiny_model, TOPK, 40, seed) for name, seed in (("a", 0), ("b", 1)))
    data = {"max_tokens": 12} if pack_to is None else {"pack_to": pack_to}
    settings = settings_of(tmp_path / "run", store, data=data, heldout={"store": str(heldout), "limit": 9})
    plan = plan_of(settings)
    inputs = open_inputs(settings, plan, OpenStores())
    assert inputs.heldout is not None
    longest = max(int(inputs.batches.sizes.max()), int(inputs.heldout.sizes.max()))
    assert longest == 12 and plan.examples == len(inputs.batches.sizes)
    left_out, held_out = 40 - plan.examples, 40 - len(inputs.heldout.sizes)
    assert min(left_out, held_out) > 5 and sum(inputs.left_out.values()) == left_out
    assert plan.notes.split("; ") == [
        f"{left_out} of 40 training examples left out: {left_out} longer than data.max_tokens = 12",
        f"{held_out} of 40 held-out examples left out: {held_out} longer than data.max_tokens = 12",
        f"heldout.limit: the first 9 of {40 - held_out} held-out examples",
    ]


def test_the_plan_says_what_the_mask_of_long_rows_needs(tmp_path: Path, tiny_model: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    notes = plan_of(settings_of(tmp_path / "run", store, data={"pack_to": 32768})).notes
    assert notes.startswith(
        "a packed row of 32,768 tokens needs an attention mask of up to 1.0 GiB with sdpa attention"
    )
    assert not plan_of(settings_of(tmp_path / "short", store, data={"pack_to": 4096})).notes


def test_lengths_are_those_in_the_students_own_tokens(tmp_path: Path, tiny_model: Path) -> None:
    texts = [
        Example(str(i), ({"role": "user", "content": f"say {i}"},), response="one and two " * (1 + i % 7))
        for i in range(40)
    ]
    store = store_of(tmp_path / "store", tiny_model, texts, 0)
    save_tokenizer(learn_tokenizer([Example("", (), response="abc")], 260), tmp_path / "bytes")
    cross = {"data": {"align": "cross_tokenizer", "pack_to": 60}, "tokenizer": {"path": str(tmp_path / "bytes")}}
    plan = plan_of(settings_of(tmp_path / "run", store, **cross))
    assert 0 < plan.examples < 40
    left_out = 40 - plan.examples
    assert f"{left_out} of 40 training examples left out: {left_out} longer than data.max_tokens = 60" in plan.notes
    same = plan_of(settings_of(tmp_path / "same", store, data={"pack_to": 60}))
    assert (same.examples, same.notes) == (40, ""), "in the teacher's tokens all fit"


def test_examples_of_a_file_are_counted_by_reason(tmp_path: Path) -> None:
    """Too long, without a response, and without a token that has a loss."""
    short = [Example(str(i), ({"role": "user", "content": "q"},), response="one") for i in range(5)]
    long = Example("long", ({"role": "user", "content": "q"},), response="one two " * 40)
    silent = Example("silent", ({"role": "user", "content": "q"},))
    thinks = Example("thinks", ({"role": "user", "content": "q"},), rationale="one two")
    write_examples(tmp_path / "examples.jsonl", [*short, long, silent, thinks])
    fields = settings_of(tmp_path / "run", tmp_path).model_dump(exclude_unset=True)
    fields |= {"data": {"examples": tmp_path / "examples.jsonl", "max_tokens": 20}, "tokenizer": {"vocab_size": 300}}
    fields["loss"] = {"objective": "hard_label", "segments": {"rationale": 0.0, "response": 0.0, "label": 1.0}}
    with pytest.raises(
        InputError, match=r"no example has a response that fits max_tokens \(.* a token that has a loss"
    ):
        plan_of(TrainSettings.model_validate(fields))
    fields["loss"] = {"objective": "hard_label"}
    notes = plan_of(TrainSettings.model_validate(fields)).notes
    assert notes == ("2 of 8 training examples left out: 1 longer than data.max_tokens = 20, 1 without a response"), (
        "a rationale has a loss by default"
    )


@pytest.mark.parametrize(
    "fields", [{**GPT2, "n_positions": 12}, {"model_type": "llama", "max_position_embeddings": 12}]
)
def test_examples_longer_than_the_models_positions_are_refused(
    tmp_path: Path, tiny_model: Path, fields: dict[str, Any]
) -> None:
    """Would catch an index error at a later step, and rotary positions that the student was never meant to have."""
    shape = {} if "n_embd" in fields else {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = {"config": {**shape, **fields}}
    store = make_store(tmp_path / "store", tiny_model, TOPK, 40)
    fix = r"of 40 training examples are longer than the 12 positions .* set data\.max_tokens = 12"
    with pytest.raises(InputError, match=fix):
        plan_of(settings_of(tmp_path / "run", store, model=model))
    assert plan_of(settings_of(tmp_path / "run", store, model=model, data={"max_tokens": 12})).examples < 40


def test_heldout_examples_longer_than_the_models_positions_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    short, long = (make_store(tmp_path / str(longest), tiny_model, TOPK, 40, 0, longest) for longest in (9, 20))
    model = {"config": {**GPT2, "n_positions": 17}}
    with pytest.raises(InputError, match="of 40 held-out examples are longer than the 17 positions"):
        plan_of(settings_of(tmp_path / "run", short, model=model, heldout={"store": str(long)}))


def test_an_encoder_decoder_has_its_positions_twice(tmp_path: Path, tiny_model: Path) -> None:
    """Once for prompts of 4 to 7 tokens, and once for responses: examples of 16 tokens fit 12 positions."""
    model = {"config": {**BART, "max_position_embeddings": 12}}
    short, long = (make_store(tmp_path / str(longest), tiny_model, TOPK, 40, 0, longest) for longest in (9, 20))
    assert plan_of(settings_of(tmp_path / "run", short, model=model)).examples == 40
    with pytest.raises(InputError, match=r"longer than the 12 positions .*'bart'; the longest has (1[3-9]|20) tokens"):
        plan_of(settings_of(tmp_path / "run", long, model=model))


def test_texts_of_classifiers_are_cut_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    store = store_of(tmp_path / "graded", tiny_model, graded(), 2, sure=0.9)
    classes = {**CLASSES, "max_tokens": 6}
    classifier = {**CLASSIFIER, "classes": classes, "model": {"config": COMPACT}}
    plan = plan_of(settings_of(tmp_path / "run", store, **classifier))
    assert plan.examples == 40 and "of 40 training texts cut to classes.max_tokens = 6 tokens" in plan.notes
    narrow = {**CLASSIFIER, "model": {"config": {**COMPACT, "max_tokens": 6}}}
    with pytest.raises(InputError, match=r"the model reads 6; set classes\.max_tokens = 6 to cut"):
        plan_of(settings_of(tmp_path / "run", store, **narrow))
    with pytest.raises(ValidationError, match=r"data\.max_tokens has no effect for \[classes\]"):
        settings_of(tmp_path / "run", store, data={"max_tokens": 100}, **classifier)


def test_a_dry_run_counts_and_refuses_as_the_run_would(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And writes nothing."""
    make_store(tmp_path / "store", tiny_model, TOPK, 40)
    job = tmp_path / "job.toml"
    job.write_text(
        'output = "run"\n[data]\nstore = "store"\n[model.config]\nmodel_type = "llama"\nhidden_size = 32\n'
        "num_hidden_layers = 1\nnum_attention_heads = 2\n[optimizer]\nlr = 0.1\n[run]\nepochs = 2\nbatch_size = 8\n"
    )
    command = ["--root", str(tmp_path), "train", str(job), "--dry-run"]
    before = sorted(tmp_path.rglob("*"))
    assert main([*command, "--set", "data.pack_to=12"]) == 0
    printed = capsys.readouterr().out
    assert "steps of 8 examples on 1 rank with micro-batches of 1 packed row of up to 12 tokens" in printed
    assert "of 40 training examples left out: " in printed and " longer than data.max_tokens = 12" in printed
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr().out
    assert (
        "40 training examples with 475 tokens, 10 steps of 8 examples on 1 rank with micro-batches of 8 examples"
        in (json.loads(printed)["preview"])
    )
    assert main([*command, "--set", "data.pack_to=12", "--set", "data.max_tokens=20"]) == 2
    assert "raise pack_to, or lower max_tokens" in capsys.readouterr().err
    assert main([*command, "--set", "model.config.max_position_embeddings=9"]) == 2
    assert "set data.max_tokens = 9" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_outcome_tells_what_was_left_out() -> None:
    result = {"steps": 3, "best_loss": None, "parameters": 1, "seconds": 9.0, "tokens_per_s": 1.0}
    result |= {"data_wait_share": 0.0, "real_token_share": 0.9876, "examples_without_loss": 3}
    result |= {"notes": "2 of 8 training examples left out: 2 without a response"}
    line = summary(result)
    assert "98.8% of the computed tokens real" in line and "3 times an example without a token that has a loss" in line
    assert line.endswith("; 2 of 8 training examples left out: 2 without a response")
