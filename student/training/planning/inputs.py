"""The model and the batches of a training job, opened and built from its settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cache.errors import SpecMismatchError
from cache.progress import Progress, no_progress
from student.classification.batches import CLASS_TARGETS, ClassBatches
from student.classification.source import ClassSource
from student.classification.texts import require_readable
from student.data.batches import Batches, LanguageBatches
from student.data.example_weights import require_learners
from student.data.sequence_lengths import require_positions
from student.data.settings import DataSettings
from student.data.sources import Examples
from student.losses.target_forms import TargetForm, require_reachable, require_supported
from student.losses.weighted_objectives import WeightedObjectives
from student.models.attention.implementations import flash_stand_in, set_attention, uses_flash
from student.models.attention.sequence_parallel import require_divisible
from student.models.build import build_model, build_structure
from student.models.model_parts import layout_of, logits_width
from student.models.rows.layout import Layout
from student.models.rows.packing_probe import refuse_unpackable
from student.models.small_copy import model_to_plan
from student.tokenizers.cross_tokenizer_store import AlignedSizes
from student.training.engine.config import PRECISIONS
from student.training.planning.examples import open_classes, open_examples
from student.training.planning.plan import Split, TrainingPlan, classes_file, plan_folder, sizes_file
from student.training.planning.sample_prompts import SamplePrompt, sample_prompts
from student.training.planning.stores import OpenStores
from student.training.planning.vocabulary import Vocabulary, load_vocabulary
from student.training.settings import TrainSettings

SHORTER = "set data.max_tokens = {limit} to leave them out"


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """What a run learns from. sources: by split, what the batches are made of.

    examples: training examples; left_out: those of the data that are not among them, by reason.
    reopen: opens the batches of another snapshot of the training store; None for a classifier.
    samples: prompts that the student continues while it learns; empty if the job asks for none. attention: the
    implementation of the model, before ranks share sequences.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batches: Batches
    heldout: Batches | None
    sources: dict[Split, Examples | ClassSource]
    examples: int
    left_out: Mapping[str, int]
    reopen: Callable[[int], Batches] | None = None
    samples: Sequence[SamplePrompt] = ()
    attention: str = ""


def open_inputs(
    settings: TrainSettings, plan: TrainingPlan, stores: OpenStores, has_weights: bool = True
) -> TrainingInputs:
    """Open the inputs of one rank, as planned: nothing is aligned, learned or tested again.

    has_weights: whether the model of this rank is loaded; otherwise its parameters are on the meta device.
    Raises SpecMismatchError if the tokenizer or the order of the examples has changed since the job was planned.
    """
    folder = plan_folder(settings)
    vocabulary = load_vocabulary(settings, folder, plan)
    inputs = InputBuilder(settings, vocabulary, stores, folder, has_weights=has_weights).build()
    if (order := order_of(inputs.sources["train"])) != plan.order:
        raise SpecMismatchError(
            f"{settings.output}: the run began with its examples in the order {plan.order}, and this version would go "
            f"on with {order}; continue with the version that began it, or start again in another output"
        )
    return inputs


def order_of(source: Examples | ClassSource) -> list[dict[str, int]]:
    """How far each store or file is shuffled, as a plan stores it. Texts of a classifier are shuffled as a whole."""
    return [] if isinstance(source, ClassSource) else [asdict(shuffle) for shuffle in source.shuffles]


class InputBuilder:
    """Builds the inputs of a job.

    plan: folder of a finished plan; what it contains is loaded, and nothing is tested again. None: the job is planned,
    and a large model is not loaded for it. has_weights: as in open_inputs.
    """

    def __init__(
        self,
        settings: TrainSettings,
        vocabulary: Vocabulary,
        stores: OpenStores,
        plan: Path | None = None,
        progress: Progress = no_progress,
        has_weights: bool = True,
    ) -> None:
        self._settings, self._vocabulary, self._stores = settings, vocabulary, stores
        self._plan, self._progress, self._has_weights = plan, progress, has_weights
        self._data: dict[Split, DataSettings] = {"train": settings.data}
        if settings.heldout is not None:
            self._data["heldout"] = settings.heldout.as_data(settings.data)

    def build(self) -> TrainingInputs:
        """Raises a LogitbankError if data, loss, tokenizer and model do not fit together."""
        return self._classifier() if self._settings.classes is not None else self._language_model()

    def _language_model(self) -> TrainingInputs:
        settings, vocabulary = self._settings, self._vocabulary
        source = self._open_examples("train")
        if self._plan is None:
            model, tested = model_to_plan(settings.model, vocabulary.size, vocabulary.tokenizer, settings.run.seed)
        else:
            model = tested = self._model(vocabulary.size)
        attention = settings.model.attn_implementation
        # A plan is made without a GPU, so flash attention is only set in the ranks.
        if attention is not None and not (uses_flash(attention) and self._plan is None):
            set_attention(model, attention)
            if tested is not model:
                set_attention(tested, attention)
        layout = layout_of(model, settings.data.pack_to)
        if self._plan is None:
            if settings.data.pack_to:
                self._refuse_unpackable(tested)
            require_positions(model.config, source, "training", SHORTER)
            if settings.run.sequence_parallel > 1:
                require_divisible(model.config, settings.run.sequence_parallel)
            require_learners(source, settings.loss.all_terms)
            require_reachable(settings.loss, logits_width(model))
        batches = self._language_batches("train", source, layout)
        sources: dict[Split, Examples | ClassSource] = {"train": source}
        heldout = None
        if "heldout" in self._data:
            sources["heldout"] = heldout_source = self._open_examples("heldout")
            if self._plan is None:
                require_positions(model.config, heldout_source, "held-out", SHORTER)
            heldout = self._language_batches("heldout", heldout_source, layout)
        return TrainingInputs(
            model,
            vocabulary.tokenizer,
            batches,
            heldout,
            sources,
            len(source),
            source.left_out,
            partial(self._reopen, model.config, layout),
            self._sample_prompts(sources, model.config),
            model.config._attn_implementation,
        )

    def _model(self, vocab_size: int, classes: Sequence[str] = ()) -> PreTrainedModel:
        """The model of a rank; or of the plan of a classifier, which is small."""
        settings, tokenizer = self._settings, self._vocabulary.tokenizer
        what = (settings.model, vocab_size, tokenizer, settings.run.seed, classes)
        if not self._has_weights and (structure := build_structure(*what)) is not None:
            return structure
        return build_model(*what, test_head=False, dtype=PRECISIONS[settings.run.precision])

    def _sample_prompts(
        self, sources: Mapping[Split, Examples | ClassSource], config: PreTrainedConfig
    ) -> Sequence[SamplePrompt]:
        if self._settings.samples is None:
            return ()
        source = sources.get("heldout", sources["train"])
        assert not isinstance(source, ClassSource)
        return sample_prompts(self._settings.samples, source, self._vocabulary, config)

    def _reopen(self, config: PreTrainedConfig, layout: Layout, snapshot: int) -> Batches:
        """The training batches of another snapshot, in stores of their own: those of the last one can be closed."""
        data = self._settings.data.model_copy(update={"snapshot": snapshot})
        source = open_examples(data, self._settings, self._vocabulary, OpenStores())
        require_positions(config, source, "training", SHORTER)
        return self._language_batches("train", source, layout)

    def _refuse_unpackable(self, model: PreTrainedModel) -> None:
        """Raise InputError unless the model keeps packed examples apart with the attention of the job."""
        rows, row_length = self._settings.packed_rows, self._settings.data.pack_to
        attention = self._settings.model.attn_implementation
        if attention is None or not uses_flash(attention):
            refuse_unpackable(model, rows, row_length)
            return
        with flash_stand_in(model, attention):
            refuse_unpackable(model, rows, row_length)

    def _classifier(self) -> TrainingInputs:
        vocabulary = self._vocabulary
        source = self._open_classes("train")
        model = self._model(len(vocabulary.tokenizer), source.names)
        require_readable(model.config, source.tokens)
        batches = self._class_batches("train", source)
        sources: dict[Split, Examples | ClassSource] = {"train": source}
        heldout = None
        if "heldout" in self._data:
            sources["heldout"] = heldout_source = self._open_classes("heldout")
            require_readable(model.config, heldout_source.tokens)
            heldout = self._class_batches("heldout", heldout_source)
        return TrainingInputs(model, vocabulary.tokenizer, batches, heldout, sources, len(source), source.left_out)

    def _open_examples(self, split: Split) -> Examples:
        data, sizes = self._data[split], None
        if self._plan is not None and data.align == "cross_tokenizer" and data.store is not None:
            sizes = AlignedSizes.load(sizes_file(self._plan, split))
        return open_examples(data, self._settings, self._vocabulary, self._stores, sizes, self._progress)

    def _open_classes(self, split: Split) -> ClassSource:
        saved = None if self._plan is None else classes_file(self._plan, split)
        return open_classes(self._data[split], self._settings, self._vocabulary, self._stores, saved, self._progress)

    def _language_batches(self, split: Split, source: Examples, layout: Layout) -> LanguageBatches:
        return LanguageBatches(source, self._objectives(split, source.form), layout, self._settings.loss.example_weight)

    def _class_batches(self, split: Split, source: ClassSource) -> ClassBatches:
        classes = self._settings.classes
        assert classes is not None
        weight = self._settings.loss.example_weight
        return ClassBatches(source, self._objectives(split, CLASS_TARGETS), weight, classes.hard_labels)

    def _objectives(self, split: Split, form: TargetForm) -> WeightedObjectives:
        data = self._data[split]
        require_supported(
            self._settings.loss, form, ", ".join(item.store for item in data.stores) or str(data.examples)
        )
        return WeightedObjectives.of(self._settings.loss, form)
