"""A spec has one fingerprint for equal settings, keeps what a later version added, and names what differs."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError, IntegrityError, NewerFormatError, SpecMismatchError
from cache.json_documents import digest
from cache.rows.spec import PromptingSpec, SamplingSpec, StoreSpec, TargetSpec
from tests.cache.rows.rows import store_spec

TARGETS = TargetSpec("nucleus", 64, mass=1.0, entropy=True, temperatures=(1.0, 2.0))
SPEC = replace(
    store_spec(TARGETS),
    sampling=SamplingSpec(4, 1.0, 1.0, 512, 0, "Answer:"),
    prompting=PromptingSpec("t", "1", "2", "3", "all", "", "same"),
    chat_template_kwargs={"a": 2, "b": [1, {"c": 0.5}]},
)


def test_numbers_have_one_spelling() -> None:
    """1 and 1.0, and numbers of numpy, are the same setting."""
    spellings: list[StoreSpec] = [
        replace(SPEC, vocab_size=float(SPEC.vocab_size), tokenizer_size=np.int64(SPEC.tokenizer_size)),  # type: ignore[arg-type]
        replace(
            SPEC, targets=TargetSpec("nucleus", np.uint8(64), mass=1, entropy=True, temperatures=[1, np.float32(2)])
        ),  # type: ignore[arg-type]
        replace(SPEC, targets=replace(TARGETS, step=np.float32(0.04), entropy=1, threshold=-0.0)),  # type: ignore[arg-type]
        replace(SPEC, sampling=SamplingSpec(4.0, 1, 1, 512, 0, "Answer:")),  # type: ignore[arg-type]
        replace(SPEC, chat_template_kwargs={"b": (1.0, {"c": np.float32(0.5)}), "a": np.float64(2)}),
    ]
    for other in spellings:
        assert other.to_document() == SPEC.to_document() and other.fingerprint == SPEC.fingerprint
        SPEC.require_same(other, "store")


def test_every_field_is_part_of_the_fingerprint_and_is_named() -> None:
    others: dict[type, Any] = {str: "other", int: 77, float: 0.77, bool: True, dict[str, Any]: {"a": 3}}
    for part, path in (
        (SPEC, ""),
        (SPEC.targets, "targets"),
        (SPEC.sampling, "sampling"),
        (SPEC.prompting, "prompting"),
    ):
        for item in fields(part):  # type: ignore[arg-type]
            if item.name in ("teacher", "unknown") or item.type not in others:
                continue
            value = others[item.type] if item.name != "entropy" else False
            changed: Any = replace(part, **{item.name: value})  # type: ignore[type-var]
            other = replace(SPEC, **{path: changed}) if path else changed
            with pytest.raises(SpecMismatchError, match=f"; {f'{path}.' if path else ''}{item.name}[.:]"):
                SPEC.require_same(other, "store")
    for other, message in (
        (replace(SPEC, chat_template_kwargs={"a": True, "b": [1, {"c": 0.5}]}), "kwargs.a: was 2, now True"),
        (replace(SPEC, chat_template_kwargs={"a": 2}), r"kwargs.b: was \[1, {'c': 0.5}\], now none"),
        (replace(SPEC, prompting=None), r"prompting: was \(template = t, .*\), now none"),
        (replace(SPEC, targets=replace(TARGETS, temperatures=(2.0,))), r"temperatures: was \[1.0, 2.0\], now \[2.0\]"),
    ):
        with pytest.raises(SpecMismatchError, match=message):
            SPEC.require_same(other, "store")


def test_optional_fields_of_a_later_version_are_kept_and_named() -> None:
    document = SPEC.to_document()
    document["spec"] = {
        **document["spec"],
        "colour": "red",
        "targets": {**document["spec"]["targets"], "shade": 3},
        "sampling": {**document["spec"]["sampling"], "beams": [1]},
    }
    with pytest.raises(IntegrityError, match="the fingerprint is that of another spec"):
        StoreSpec.from_document(document, "spec.json")
    content = {name: value for name, value in document["spec"].items() if name != "teacher"}
    document["fingerprint"] = digest({"format": 1, **content})
    later = StoreSpec.from_document({**document, "written_by": "version 9"}, "spec.json")
    assert later.targets == TARGETS and later.fingerprint == document["fingerprint"] != SPEC.fingerprint
    assert later.to_document() == document
    with pytest.raises(SpecMismatchError, match=r"beams: was \[1\], now none; colour: was red, now none"):
        replace(later, unknown={k: v for k, v in later.unknown.items() if k != "targets"}).require_same(SPEC, "store")
    with pytest.raises(SpecMismatchError, match=r"targets\.shade: was 3, now none"):
        later.require_same(SPEC, "store")


def test_missing_fields_and_newer_formats_are_named() -> None:
    document = SPEC.to_document()
    for path in (("weights",), ("targets", "step"), ("sampling", "seed"), ("prompting", "keep"), ("targets",)):
        spec = {k: dict(v) if isinstance(v, dict) else v for k, v in document["spec"].items()}
        inner = spec
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]
        place = f"spec.json: {'.'.join(('spec', *path[:-1]))}: has no field '{path[-1]}'"
        with pytest.raises(IntegrityError, match=place.replace(".", r"\.")):
            StoreSpec.from_document({**document, "spec": spec}, "spec.json")
    with pytest.raises(NewerFormatError, match=r"spec\.json: has format 2"):
        StoreSpec.from_document({**document, "format": 2}, "spec.json")
    with pytest.raises(NewerFormatError, match=r"spec\.json: requires the feature 'colour'"):
        StoreSpec.from_document({**document, "requires": ["colour"]}, "spec.json")


@pytest.mark.parametrize(
    "field, value",
    [("k", "8"), ("k", 8.5), ("k", True), ("mass", "1"), ("mass", float("nan")), ("mass", None), ("entropy", "yes")],
)
def test_values_of_another_type_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"TargetSpec.{field} = .*: must be"):
        replace(TARGETS, **{field: value})  # type: ignore[arg-type]
