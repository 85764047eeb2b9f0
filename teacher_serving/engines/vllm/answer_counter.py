"""AnswerCounter: counts finished requests where vLLM would draw a progress bar."""

from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class AnswerCounter(tqdm):  # type: ignore[type-arg]  # used without items
    """A progress bar that draws nothing and reports how many requests were finished since the last report.

    vLLM makes one bar for adding the requests, which goes through an iterable, and one for running them, which it
    advances by `update`.
    """

    def __init__(self, report: Callable[[int], None], *arguments: Any, **options: Any) -> None:
        self._report = report
        super().__init__(*arguments, **options)

    def update(self, n: float | None = 1) -> bool | None:
        """Count n finished requests. Steps of the bar with an iterable are not answers."""
        if self.iterable is None:
            self.n += n or 0
            self._report(int(n or 0))
        return None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """Leave the terminal as it is, and its lines to later bars."""
        self.disable = True
        self._decr_instances(self)  # type: ignore[attr-defined]
