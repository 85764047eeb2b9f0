"""Make the folder of one model. python -m environment.models NAME [--output FOLDER]"""

import argparse
import sys
from pathlib import Path

from environment.models.packaged import PACKAGED, MissingPackageError, make_model


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m environment.models", description="Make the folder of a model.")
    parser.add_argument("name", choices=sorted(PACKAGED), help="the model")
    parser.add_argument("--output", type=Path, help="folder to make (by default one below runs/)")
    arguments = parser.parse_args()
    model = PACKAGED[arguments.name]
    try:
        made = make_model(model, arguments.output or Path(model.folder))
    except MissingPackageError as error:
        print(f"models: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"models: {made}", flush=True)


if __name__ == "__main__":
    main()
