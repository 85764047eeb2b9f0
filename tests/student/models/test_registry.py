"""A kind of student outside the packages is built, trained with the fused loss, saved and loaded like one inside."""

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, PreTrainedConfig

from cache.registry import PLUGINS_VARIABLE
from student.models.registry import STUDENT_KINDS, kind_of

ROOT = Path(__file__).resolve().parents[3]
# A recurrent language model: its hidden states come from an attribute of its own, and it cannot be packed.
PLUGIN = """
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from student.models.rows.layout import PADDED
from student.models.student_kind import StudentKind

class GruConfig(PreTrainedConfig):
    model_type = "toy_gru"

    def __init__(self, vocab_size=64, width=16, **others):
        self.vocab_size, self.width = vocab_size, width
        super().__init__(**others)

class GruModel(PreTrainedModel):
    config_class = GruConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.memory = nn.GRU(config.width, config.width, batch_first=True)
        self.head = nn.Linear(config.width, config.vocab_size)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Embedding | nn.Linear | nn.GRU):
            module.reset_parameters()

    def get_output_embeddings(self):
        return self.head

    def states(self, input_ids):
        return self.memory(self.embedding(input_ids))[0]

    def forward(self, input_ids, use_cache=False):
        return CausalLMOutput(logits=self.head(self.states(input_ids)))

AutoConfig.register("toy_gru", GruConfig)
AutoModelForCausalLM.register(GruConfig, GruModel)

class Gru(StudentKind):
    name = "toy_gru"
    can_be_packed = False

    def handles(self, config):
        return config.model_type == "toy_gru"

    def auto_class(self):
        return AutoModelForCausalLM

    def hidden_states(self, model, inputs):
        return model.states(**inputs).flatten(0, 1)

    def layout(self, config, pack_to):
        return PADDED

STUDENT_KIND = Gru()
"""
# Runs in a process of its own: the registry of this one is loaded already.
RUN = """
import sys
import numpy as np
import torch
from cache.errors import InputError
from cache.examples.tokenizers import load_tokenizer
from cache.rows.spec import TargetSpec
from student.data.collate import collate
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from student.models.build import build_model, load_student
from student.models.loss_model import LossModel
from student.models.model_parts import layout_of
from student.models.settings import ModelSettings
from tests.cache.rows.rows import VOCAB, random_record

folder, tokenizer = sys.argv[1], load_tokenizer(sys.argv[2])
torch.manual_seed(0)
model = build_model(ModelSettings(config={"model_type": "toy_gru", "width": 24}), VOCAB, tokenizer, 0)
targets, rng = TargetSpec("topk", 8), np.random.default_rng(0)
windows = [random_record(rng, str(i), 4, 6, targets).window for i in range(4)]
objectives = WeightedObjectives.of(LossSettings(hard_label_weight=0.5), TargetForm.of(targets))
batch = collate(windows, objectives, layout_of(model, None))
loss_model, factors = LossModel(model, objectives), sum_coefficients(objectives, sum_row_weights([batch]))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
losses = []
for _ in range(20):
    loss = loss_model(batch, factors).objective
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(float(loss.detach()))
model.save_pretrained(folder)
loaded = load_student(folder, VOCAB)
with torch.no_grad():
    after = [float(LossModel(each, objectives)(batch, factors).objective) for each in (model, loaded)]
try:
    layout_of(model, 64)
except InputError as error:
    print(error)
print(type(loaded).__name__, losses[-1] < 0.8 * losses[0], after[0] == after[1])
"""


def test_a_kind_in_a_plugin_trains_and_is_saved_and_loaded(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gru_plugin.py").write_text(PLUGIN)
    monkeypatch.setenv(PLUGINS_VARIABLE, "gru_plugin")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "student"), str(tiny_model)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    refusal, result = run.stdout.splitlines()[-2:]
    assert refusal == "data.pack_to: 'toy_gru' is of the kind toy_gru, which cannot be packed; leave it out"
    assert result == "GruModel True True"


def test_a_kind_for_particular_models_goes_before_a_general_one() -> None:
    """Whatever the order of their names: "bidirectional" is found before "causal"."""
    config = AutoConfig.for_model("llama", hidden_size=8, num_attention_heads=1)

    class Bidirectional(type(STUDENT_KINDS["causal"])):  # type: ignore[misc]
        name = "bidirectional"
        is_general = False

        def handles(self, config: PreTrainedConfig) -> bool:
            return bool(config.model_type == "llama")

    items = {"bidirectional": Bidirectional(), **{kind.name: kind for kind in STUDENT_KINDS}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STUDENT_KINDS, "_items", items)
        assert kind_of(config).name == "bidirectional"
    assert kind_of(config).name == "causal"
