"""The registry of kinds of student, and configurations of models of any kind."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from cache.registry import Registry
from student.models.settings import ModelSettings
from student.models.student_kind import StudentKind

STUDENT_KINDS: Registry[StudentKind] = Registry("kind of student", "student.models.kinds", "STUDENT_KIND")


def kind_of(config: PreTrainedConfig) -> StudentKind:
    """The kind of the models with this configuration.

    A kind for particular models takes precedence over a general one, and a plugin over a kind of this project.
    """
    kinds = [kind for kind in STUDENT_KINDS if kind.handles(config)]
    return ([kind for kind in kinds if not kind.is_general] or kinds)[-1]


def read_config(path: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration of a saved model. Loads all kinds first, since some register classes with Transformers."""
    STUDENT_KINDS.names()
    # The flag is always given: without it Transformers asks on the terminal.
    return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)


def has_encoder(settings: ModelSettings) -> bool:
    """Whether the student reads prompts with an encoder. False for settings that no model can be built from."""
    try:
        if settings.pretrained is not None:
            config = read_config(settings.pretrained, settings.trust_remote_code)
        else:
            fields = dict(settings.config or {})
            config = make_config(fields.pop("model_type"))
    except Exception:  # the code of a configuration may raise anything; building the model says what is wrong
        return False
    return not kind_of(config).learns_prompts


def make_config(model_type: str, **fields: Any) -> PreTrainedConfig:
    """A new configuration of this model type. Raises ValueError, TypeError or KeyError if there is none."""
    STUDENT_KINDS.names()
    return AutoConfig.for_model(model_type, **fields)
