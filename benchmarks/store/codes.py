"""Which codebook makes the ids of a teacher's rows smallest? Bytes a token on rows that none of them was learned from.

plain: ids as they are. frequency: ranks by how often an id is an entry. token, first: rank in a list learned from other
rows, selected by the row's token or by its first entry. "first" needs neither tokens nor an engine.

    python -m benchmarks.store.codes rows.npz
"""

import argparse
from pathlib import Path

from benchmarks.common.harness import finish
from benchmarks.common.rows import entropy_bytes, rows_from_npz
from cache.parts.codebook_learning import code_bytes, frequency_codebook, list_codebook
from cache.rows.codebook import plain_codebook
from cache.rows.spec import TargetSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("npz", type=Path, nargs="+", help="rows with tokens, of benchmarks.store.teacher_rows")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    names = ("plain", "frequency", "token", "first")
    print(f"{'':<12}{'vocab':>8}{'entropy':>9}" + "".join(f"{name:>11}" for name in names))
    results = {}
    for path in options.npz:
        rows = rows_from_npz(path, options.k, None)
        spec = TargetSpec("topk", options.k)
        cut = len(rows.ids) * 3 // 5
        seen, unseen = rows.targets(0, cut), rows.targets(cut, len(rows.ids))
        before, after = rows.tokens[:cut], rows.tokens[cut:]
        codebooks = {
            "plain": plain_codebook(rows.vocab),
            "frequency": frequency_codebook(seen, rows.vocab),
            "token": list_codebook(seen, before, rows.vocab, by_token=True),
            "first": list_codebook(seen, before, rows.vocab, by_token=False),
        }
        sizes = {name: code_bytes(unseen, after, spec, book) / len(after) for name, book in codebooks.items()}
        entropy = entropy_bytes(rows, spec)[0]
        results[path.stem] = {"vocab": rows.vocab, "rows": len(after), "id_entropy_bytes_per_token": entropy, **sizes}
        cells = "".join(f"{sizes[name]:>11.1f}" if name in sizes else f"{'':>11}" for name in names)
        print(f"{path.stem:<12}{rows.vocab:>8,}{entropy:>9.1f}{cells}")
    finish("store.codes", {"k": options.k, "teachers": results}, options.save, "store_codes")


if __name__ == "__main__":
    main()
