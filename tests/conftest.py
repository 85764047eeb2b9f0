"""What every test needs: fixtures, the environment of engines, and the distribution of tests over worker processes."""

import os

import pytest

from teacher_serving.engines.vllm.process import process_environment

pytest_plugins = ("tests.records", "tests.models")

# Engines in this process need their environment before torch is first imported.
os.environ.update(process_environment(1, on_gpu=False))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: two worker processes take files in this order, and finish at about one time."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)
