"""Implementations are found in their folder and in plugins, and nothing is imported before it is needed."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import ValidationError

from cache.errors import InputError
from cache.registry import PLUGINS_VARIABLE, Registry
from cache.settings import OneOf, Settings


class PathSettings(Settings):
    name: str
    path: Path


class SquareSettings(Settings):
    name: str
    side: int = 1


@dataclass(frozen=True)
class Shape:
    name: str
    settings: type[Settings] = SquareSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `shapes` with one implementation, and a plugin with another."""
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "__init__.py").write_text("")
    (tmp_path / "shapes" / "square.py").write_text(
        f"from {__name__} import Shape\nSHAPE = Shape('square')\nOTHER = Shape('other')\n"
    )
    (tmp_path / "shapes" / "helper.py").write_text("VALUE = 1\n")
    (tmp_path / "outside.py").write_text(f"from {__name__} import Shape\nSHAPE = Shape('circle')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("shapes", "outside")]:
        del sys.modules[name]


def test_modules_of_the_folder_and_plugins_are_found_at_the_first_lookup(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLUGINS_VARIABLE, " outside ,")
    registry: Registry[Shape] = Registry("shape", "shapes", "SHAPE")
    assert "shapes" not in sys.modules
    assert registry.names() == ("square", "circle")
    assert registry["circle"].name == "circle"


def test_an_unknown_name_lists_the_valid_ones(folder: Path) -> None:
    registry: Registry[Shape] = Registry("shape", "shapes", "SHAPE")
    with pytest.raises(InputError, match="unknown shape 'cube'; valid names: square"):
        registry["cube"]


def test_a_name_is_registered_once(folder: Path) -> None:
    registry: Registry[Shape] = Registry("shape", "shapes", "SHAPE")
    registry.add(Shape("cube"))
    with pytest.raises(InputError, match="'square' is registered twice"):
        registry.add(Shape("square"))
    assert registry.names() == ("square", "cube")


def test_a_settings_field_takes_the_class_of_the_named_implementation(folder: Path) -> None:
    registry: Registry[Shape] = Registry("shape", "shapes", "SHAPE")

    class Job(Settings):
        shape: Annotated[Settings, OneOf(registry)]

    job = Job.model_validate({"shape": {"name": "square", "side": 3}})
    assert isinstance(job.shape, SquareSettings)
    assert job.model_dump(mode="json") == {"shape": {"name": "square", "side": 3}}
    assert Job.model_validate(job.model_dump(mode="json")) == job
    with pytest.raises(ValidationError) as error:
        Job.model_validate({"shape": {"name": "square", "edge": 3}})
    assert error.value.errors()[0]["loc"] == ("shape", "square", "edge")
    with pytest.raises(ValidationError, match="square"):
        Job.model_validate({"shape": {"name": "cube"}})


def test_threads_see_a_full_registry_or_none(folder: Path) -> None:
    for _ in range(20):
        registry: Registry[Shape] = Registry("shape", "shapes", "SHAPE")
        with ThreadPoolExecutor(8) as pool:
            assert {item.name for item in pool.map(lambda _: registry["square"], range(16))} == {"square"}  # noqa: B023


def test_a_broken_plugin_is_named_and_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "outside.py").write_text("import no_such_library\n")
    monkeypatch.setenv(PLUGINS_VARIABLE, "outside")
    registry: Registry[Shape] = Registry("shape", "shapes", "SHAPE")
    for _ in range(2):  # also at the second attempt, not an empty registry
        with pytest.raises(InputError, match="plugin 'outside': ModuleNotFoundError: No module named"):
            registry.names()
    monkeypatch.setenv(PLUGINS_VARIABLE, "my_package.my_task")
    with pytest.raises(InputError, match="No module named 'my_package'; add the folder that contains it to PYTHONPATH"):
        registry.names()
    monkeypatch.setenv(PLUGINS_VARIABLE, "outside")
    (folder / "outside.py").write_text("SHAPE = object()\n")
    with pytest.raises(InputError, match="plugin 'outside': AttributeError"):
        registry.names()


def test_a_plugin_cannot_take_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "outside.py").write_text(f"from {__name__} import Shape\nSHAPE = Shape('square', None)\n")
    monkeypatch.setenv(PLUGINS_VARIABLE, "outside")
    with pytest.raises(InputError, match="shape 'square' is registered twice"):
        Registry("shape", "shapes", "SHAPE").names()


def test_entry_points_name_a_module_or_an_object_in_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("a", "outside:SHAPE", "logitbank"), EntryPoint("b", "outside", "logitbank")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    assert Registry("shape", "shapes", "SHAPE").names() == ("square", "circle")


def test_a_similar_name_is_suggested(folder: Path) -> None:
    with pytest.raises(InputError, match="unknown shape 'sqare'; did you mean 'square'\\? valid names: square"):
        Registry("shape", "shapes", "SHAPE")["sqare"]


def test_a_chosen_class_dumps_in_the_requested_mode(folder: Path) -> None:
    registry: Registry[Shape] = Registry("shape", "shapes", "SHAPE")
    registry.add(Shape("path", PathSettings))

    class Job(Settings):
        shape: Annotated[Settings, OneOf(registry)]

    job = Job.model_validate({"shape": {"name": "path", "path": "a/b"}})
    assert job.model_dump(mode="json")["shape"]["path"] == "a/b"
    assert job.model_dump()["shape"]["path"] == Path("a/b")
