"""Settings of a student model."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from cache.settings import ModelPath, Settings


class LoraSettings(Settings):
    """Low-rank adapters (PEFT) in place of full fine-tuning.

    When the student is saved they are merged, and saved by themselves in its folder `adapter`.
    """

    rank: int = Field(16, ge=1, description="of the adapters")
    alpha: int = Field(32, ge=1, description="scale of the adapters")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="names of modules, or all-linear")
    quantise: Literal["nf4"] | None = Field(
        None,
        description="hold the frozen weights of linear layers in 4 bits (QLoRA, arXiv 2305.14314), without ZeRO-3; "
        'needs `pip install "logitbank[quantised]"`; the saved student has the rounded weights, in full size',
    )
    dora: bool = Field(False, description="learn the norm of each row of a weight as well (DoRA, arXiv 2402.09353)")


class ModelSettings(Settings):
    """The student: pretrained weights, or a Transformers configuration to start from random ones.

    A configuration of model_type "logitbank_compact" is a small classifier, and needs [classes].
    """

    pretrained: ModelPath | None = Field(None, description="folder or hub name of the weights")
    config: dict[str, Any] | None = Field(None, description="Transformers configuration, for random weights")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="keys of the configuration of the pretrained weights that are changed, such as rope_parameters",
    )
    trust_remote_code: bool = Field(False, description="run Python code that the folder of pretrained weights contains")
    layers: PositiveInt | tuple[NonNegativeInt, ...] | None = Field(
        None,
        description="layers of the pretrained weights that are kept: their numbers from 0, rising, or how many, evenly "
        "spaced; all if not given",
    )
    lora: LoraSettings | None = Field(None, description="low-rank adapters; none if not given")
    attn_implementation: str | None = Field(
        None,
        description="attention of Transformers, such as sdpa or flash_attention_2; the model's default if not given",
    )
    gradient_checkpointing: bool = Field(False, description="compute activations again in the backward pass")

    def unused_keys(self) -> dict[str, str]:
        unused: dict[str, str] = {}
        for table, fields in (("config", self.config or {}), ("options", self.options)):
            dropout = (name for name, value in fields.items() if "drop" in name and isinstance(value, float) and value)
            unused |= {f"{table}.{name}": "students are trained without dropout" for name in dropout}
        if self.pretrained is None:
            unused["trust_remote_code"] = "it is about the folder of 'pretrained', and there is none"
            unused["options"] = "'config' has all keys of the configuration"
            unused["layers"] = "it is about the weights of 'pretrained', and there are none"
        return unused | {f"config.{name}": "run.precision decides it" for name in ("dtype", "torch_dtype")}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pretrained is None) == (self.config is None):
            raise ValueError("give exactly one of 'pretrained' and 'config'")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("'config' needs a 'model_type', such as \"llama\"")
        if self.lora is not None and self.pretrained is None:
            raise ValueError("'lora' adapts pretrained weights; give 'pretrained'")
        if self.lora is not None and self.lora.quantise is not None and self.layers is not None:
            raise ValueError("'layers' and 'lora.quantise' cannot be combined; leave out one of them")
        if isinstance(self.layers, tuple) and (not self.layers or sorted(set(self.layers)) != list(self.layers)):
            raise ValueError(f"'layers' must be different numbers that rise (given {list(self.layers)})")
        return self
