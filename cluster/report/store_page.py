"""The page of one store (`logitbank inspect STORE --page`): how its capture went, and what it contains."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.storage.hub_folder import HubFolder
from cache.store.commits import commit_path
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import QuarantineEntry, read_entries
from cache.store.quarantine.reasons import general_reason
from cluster.report import figures
from cluster.report.target_statistics import bytes_by_array, entropies, mass_by_k, sample_targets
from student.tasks.figures import bars

# Commits whose time is asked for: a request each in an object store.
MAX_COMMITS = 2000
# Entries of the quarantine that are shown of each reason, and reasons.
SHOWN_ENTRIES, SHOWN_REASONS = 5, 20


def write_store_page(store: LogitStore, path: Path) -> None:
    """Write the page of the snapshot that `store` has open: one HTML file that refers to no other.

    Raises InputError for a folder, a file that is no page, and a file of the store.
    """
    if path.suffix != ".html" or path.is_dir():
        raise InputError(f"--page {path}: give the name of a file that ends in .html")
    if path.resolve().is_relative_to(Path(str(store.storage)).resolve()):
        raise InputError(f"--page {path}: lies inside the store itself; give a file outside")
    text = render(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)


def render(store: LogitStore) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("store.html.j2").render(
        title=f"Store {Path(str(store.storage)).name}",
        summary=str(store.info()),
        charts=_charts(store),
        reasons=entries_by_reason(read_entries(store.storage)),
        shown=SHOWN_ENTRIES,
    )


def _charts(store: LogitStore) -> list[tuple[str, str]]:
    """Caption and SVG of each chart."""
    charts: list[tuple[str, str]] = []
    if (rates := rows_over_time(store)) is not None:
        charts.append(("Tokens a second, by the times of the files of commits", figures.rate_over_time(*rates)))
    lengths = {"all tokens": store.index.tokens, "tokens with a target": store.index.rows}
    if len(store):
        charts.append(("Length of the examples", figures.length_histogram(lengths)))
    if store.index.rows.sum():
        targets = sample_targets(store)
        charts += [
            ("The teacher's entropy", figures.entropy_histogram(entropies(targets))),
            ("Mass left out by top-k", figures.retained_mass(mass_by_k(targets, store.spec.targets.max_entries))),
            ("Bytes per token, by array", bars(bytes_by_array(store), "bytes per token with a target")),
        ]
    return charts


def rows_over_time(store: LogitStore) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]] | None:
    """Seconds since the first commit, in order, and the rows of each; of at most MAX_COMMITS units, evenly spaced.

    Rows are scaled to all units. The times are those of the files, so of a copy they say how fast it was copied. None
    for a store on a hub, and if all commits have one time.
    """
    if isinstance(store.storage, HubFolder):
        return None
    index = store.index
    step = max(1, len(index.unit) // MAX_COMMITS)
    units = range(0, len(index.unit), step)
    times = np.array([store.storage.changed(commit_path(index.unit[unit].tobytes().hex())) for unit in units])
    order = np.argsort(times, kind="stable")
    times = times[order]
    if len(times) < 2 or times[-1] - times[0] < 1:
        return None
    return times - times[0], index.totals[list(units), 2][order] * step


def entries_by_reason(entries: Sequence[QuarantineEntry]) -> list[tuple[str, int, list[QuarantineEntry]]]:
    """Each general reason, how many entries have it, and the first of them; the most frequent first."""
    grouped: dict[str, list[QuarantineEntry]] = {}
    for entry in entries:
        grouped.setdefault(general_reason(entry.reason), []).append(entry)
    ordered = sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(reason, len(found), found[:SHOWN_ENTRIES]) for reason, found in ordered[:SHOWN_REASONS]]
