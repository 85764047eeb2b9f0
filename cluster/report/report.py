"""Collect what jobs wrote into results.json, a table for the terminal and one HTML page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.json_documents import write_json
from cluster.report.page import render_page
from cluster.report.results import collect_results, read_sources, summary_table
from cluster.report.settings import ReportSettings


@dataclass(frozen=True, slots=True)
class Report:
    """results: the content of results.json. text: a summary for the terminal."""

    results: dict[str, Any]
    text: str
    results_path: Path
    page_path: Path


def run_report(settings: ReportSettings) -> Report:
    """Write results.json and report.html into the output folder.

    Raises InputError if a file of one of the jobs is missing.
    """
    sources = read_sources(settings)
    info = sources.store.info()
    results = collect_results(sources, info)
    results_path, page_path = settings.output / "results.json", settings.output / "report.html"
    write_json(results_path, results)
    draft = settings.output / ".report.html.tmp"
    draft.write_text(render_page(settings, sources))
    draft.replace(page_path)
    text = f"{summary_table(sources, info)}\n\n{results_path}\n{page_path}"
    return Report(results, text, results_path, page_path)
