"""What every test needs: fixtures, the environment of engines, and the distribution of tests over worker processes."""

import os

import pytest

from teacher_serving.engines.vllm.process import process_environment

pytest_plugins = ("tests.records", "tests.models")

# Engines in this process need their environment before torch is first imported.
os.environ.update(process_environment(1, on_gpu=False))

# Groups of slow tests, in the order of their start. See the docstring of tests/__init__.py.
GROUPS = ("cluster", "engines", "ranks", "storage", "adapters")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one group, or of one file, run in one worker process (`--dist loadgroup`). Slow groups come first."""
    order: dict[str, int] = {name: number for number, name in enumerate(GROUPS)}
    groups = {}
    for item in items:
        slow = item.get_closest_marker("slow")
        group = slow.args[0] if slow else item.nodeid.partition("::")[0]
        if slow and group not in GROUPS:
            raise pytest.UsageError(f"{item.nodeid}: group {group!r} of the marker slow is none of {GROUPS}")
        item.add_marker(pytest.mark.xdist_group(group))
        groups[item] = order.setdefault(group, len(order))
    items.sort(key=groups.__getitem__)
