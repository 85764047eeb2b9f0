"""Write the generated pages, or check that the committed ones are current."""

import argparse
import os
import sys
from pathlib import Path

from cache.registry import PLUGINS_VARIABLE
from docs.generate import pages

ROOT = Path(__file__).resolve().parents[2]


def main(root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is not current")
    check = parser.parse_args().check
    os.environ.pop(PLUGINS_VARIABLE, None)  # the pages describe the project alone
    outdated = pages.outdated(root)
    for name, text in outdated.items():
        if not check:
            (root / name).write_text(text)
        print(f"{name}: {'not current; run `python -m docs.generate`' if check else 'written'}")
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
