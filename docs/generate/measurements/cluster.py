"""Captures on a cluster with a stand-in for the teacher: rates, memory, a start again, a peer, and kills."""

from typing import Any

from docs.generate.measurements.results import RESULTS, origin, read, spread, table

RATES = """\
The teacher is a stand-in that needs no core: what remains is what Ray, the driver and the writing of parts cost. *Free*
means that it takes no time; *paced* engines sleep {pace}. *More
examples a second* are those that the larger of two free jobs has more, over the seconds that its command takes longer. Processes
of Ray plan both jobs ahead.
"""
RESUME = """\
What a driver needs to know before it hands out the first unit: the keys of all that is committed. A snapshot lists all
but the last {new:,} commits. Seconds on the clock, and memory above that of a process with the same imports; *read* is a
file with these keys and nothing else; *index* is what a reader of the store has.
"""
KILLS = """\
On a head with two nodes something was killed every few seconds: {killed}. Drivers ended with exit codes {codes} on the
way. After that, of {examples:,} examples {different} were different from an undisturbed capture, {missing} missing,
{more} too many, {quarantined} in quarantine; {twice} had been committed twice, and count once.
"""


def section() -> str:
    """All that was measured; a result file that is not there yet has no table."""
    parts = [_rates(), _resume(), _kills()]
    return "## Captures on a cluster\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _has(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


def _rates() -> str:
    if not _has("scale"):
        return ""
    result = read("scale")
    rows = [
        ("units of 64 examples a second, free", f"{result['units_per_s']:.1f}", ""),
        ("more examples a second, free", *_pair(result, "more_examples_per_s", ",.0f")),
        ("MiB of the driver", *_pair(result, "coordinator_rss_mib", ",.0f")),
        ("seconds to find that nothing is missing", f"{result['resume_scan_s']:.1f}", ""),
        ("pace of one engine, of the stand-in's own", spread(result["pace_of_one"], ".2f"), ""),
    ]
    for name, value in result.items():
        if name.startswith("efficiency_"):
            count = name.split("_")[1]
            rows.append((f"rate of {count} engines, of {count} times one", spread(value, ".2f"), ""))
    deadly = [result.get(f"after_a_deadly_example_{name}") for name in ("own", "ray_data")]
    if all(deadly):
        cells = [f"{each['committed']:,} (exit code {each['exit_code']})" for each in deadly if each]
        rows.append(("committed of a job with an example that kills its engine", *cells))
    text = RATES.format(pace="as long as an accelerator would compute")
    return f"{text}\n{table(('', 'this project', 'a pipeline of Ray Data'), rows)}\n\n{origin(['scale'])}"


def _pair(result: dict[str, Any], name: str, form: str) -> tuple[str, str]:
    return f"{result[name]:{form}}", f"{result[f'{name}_ray_data']:{form}}"


def _resume() -> str:
    if not _has("scale_resume"):
        return ""
    result = read("scale_resume")
    head = ("units", "examples", "keys s", "keys MiB", "bytes a key", "index s", "index MiB", "read s", "read MiB")
    rows = [
        (
            f"{each['units']:,}",
            f"{each['examples']:,}",
            f"{each['keys_s']['median']:.2f}",
            f"{each['keys_mib']:,.0f}",
            f"{each['bytes_a_key']:.1f}",
            f"{each['index_s']['median']:.2f}",
            f"{each['index_mib']:,.0f}",
            f"{each['limit_s']['median']:.2f}",
            f"{each['limit_mib']:,.0f}",
        )
        for each in result["by_units"]
    ]
    return f"{RESUME.format(new=result['new'])}\n{table(head, rows)}\n\n{origin(['scale_resume'])}"


def _kills() -> str:
    if not _has("scale_kills"):
        return ""
    result = read("scale_kills")
    killed = ", ".join(f"{kind} {count}" for kind, count in result["killed"].items())
    codes = ", ".join(f"{code} ({count})" for code, count in result["exit_codes_of_drivers"].items()) or "none"
    facts = {name: result[name] for name in ("examples", "different", "missing", "more", "quarantined")}
    text = KILLS.format(killed=killed, codes=codes, twice=result["committed_twice"], **facts)
    return f"{text}\n{origin(['scale_kills'])}"
