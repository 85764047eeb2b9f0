"""Code of a tokenizer runs only where asked, and no question is put."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cache.examples.chats import PLAIN, chat_tokenizer

CODE = """
from transformers import PreTrainedTokenizerFast
print("the code ran")
class TinyTokenizer(PreTrainedTokenizerFast):
    pass
"""
LOAD = """
import sys
from cache.errors import InputError
from cache.examples.tokenizers import load_tokenizer, tokenizer_files
try:
    tokenizer = load_tokenizer(sys.argv[1], trust_remote_code=sys.argv[2] == "yes")
    print("loaded", type(tokenizer).__name__, "auto_map" in str(tokenizer_files(tokenizer)))
except InputError as error:
    print("refused", error)
"""


def test_code_of_a_tokenizer_runs_only_where_asked(tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    chat_tokenizer(PLAIN).save_pretrained(str(folder))
    (folder / "tokenization_tiny.py").write_text(CODE)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {
        "tokenizer_class": "TinyTokenizer",
        "auto_map": {"AutoTokenizer": [None, "tokenization_tiny.TinyTokenizer"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}

    def load(trust: str) -> str:
        command = [sys.executable, "-c", LOAD, str(folder), trust]
        # "y" would be the answer to a question.
        done = subprocess.run(command, input="y\n", capture_output=True, text=True, env=environment, check=True)
        return done.stdout

    assert load("yes").splitlines() == ["the code ran", "loaded TinyTokenizer False"]
    (refused,) = load("no").splitlines()
    assert refused.startswith("refused tokenizer ") and "contains Python code of its own, which is not run" in refused
