"""All that the documents show of the store beside others: every teacher's rows, simulated rows, lengths of documents.

Runs benchmarks.store once for each, one after another; each saves its own result file. Rows of teachers are the .npz
files of a folder, made by benchmarks.store.teacher_rows. About 15 minutes with three teachers on one core.

    python -m benchmarks.store.table --rows runs/rows --save
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VOCABULARIES = (32_000, 151_936)
SIZES = (64, 128)
DOCUMENT_TOKENS = (18, 120, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="folder with the rows of teachers")
    parser.add_argument("--tokens", type=int, default=300_000, help="simulated rows (default: %(default)s)")
    parser.add_argument("--mds-python", help="see benchmarks.store")
    parser.add_argument("--peers", help="see benchmarks.store")
    parser.add_argument("--only", default="", help="only results whose name contains this")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    options = parser.parse_args()
    failed = []
    for name, arguments in runs(options.rows, options.tokens):
        if options.only not in name:
            continue
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", "benchmarks.store", *arguments]
        command += ["--mds-python", options.mds_python] if options.mds_python and "--peers" not in arguments else []
        command += ["--peers", options.peers] if options.peers and "--peers" not in arguments else []
        command += ["--save", name] if options.save else []
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"benchmark: failed: {', '.join(failed)}")


def runs(rows: Path | None, tokens: int) -> Iterator[tuple[str, list[str]]]:
    """Name of the result and arguments of benchmarks.store for each run."""
    for path in sorted(rows.glob("*.npz")) if rows else ():
        for k in SIZES:
            yield f"store_{path.stem}_k{k}", ["--npz", str(path), "--k", str(k)]
    simulated = ["--tokens", str(tokens)]
    for k in SIZES:
        for vocab in VOCABULARIES:
            yield f"store_k{k}_v{vocab}", [*simulated, "--k", str(k), "--vocab", str(vocab)]
    for length in DOCUMENT_TOKENS:
        lengths = [*simulated, "--k", "64", "--vocab", str(VOCABULARIES[1]), "--document-tokens", str(length)]
        yield f"store_documents_{length}", [*lengths, "--peers", "memmap"]


if __name__ == "__main__":
    main()
