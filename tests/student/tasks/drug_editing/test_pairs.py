"""Files of molecules and of pairs: what is usable, what is left out with its reason, and bad lines by number."""

from collections import Counter
from pathlib import Path

import pytest

from cache.errors import InputError
from student.tasks.drug_editing.molecules import read_molecules
from student.tasks.drug_editing.pairs import read_pairs
from student.tasks.drug_editing.task import DrugEditing
from tests.real_data import real_data


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_lines_that_are_left_out_are_counted(tmp_path: Path) -> None:
    """A byte-order mark, line ends of Windows, a name after the SMILES, and one molecule in two spellings."""
    text = "\ufeffCCO ethanol\r\nOCC again\r\n\r\nCC.O\r\nwrong\r\n*C\r\nCCCCCCCC\r\nCCN\r\n"
    molecules, left_out = read_molecules(write(tmp_path / "m.smi", text), 5)
    assert [molecule.smiles for molecule in molecules] == ["CCO", "CCN"]
    assert left_out == {
        "same molecule as an earlier line": 1,
        "several fragments or dummy atoms": 2,
        "not a valid molecule": 1,
        "more than max_heavy_atoms": 1,
    }
    with pytest.raises(InputError, match=r"1 usable molecules.*left out: 1 not a valid molecule"):
        read_molecules(write(tmp_path / "few.smi", "CCO\nwrong\n"), 5)


def test_pairs_of_a_file_are_edits_in_its_direction(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.txt", "\ufeffCCO OCCO\r\nCCO C(O)CO\r\nCCO OCC\r\nCC wrong\r\n\r\nCCCC CCCCO\r\n")
    found = read_pairs(path, 40, lambda done, total: None)
    assert [(found.molecules[i].smiles, found.molecules[j].smiles) for i, j in found.pairs] == [
        ("CCO", "OCCO"),
        ("CCCC", "CCCCO"),
    ]
    assert found.left_out == Counter(
        {"same pair as an earlier line": 1, "both molecules are the same": 1, "not a valid molecule": 1}
    )
    built = DrugEditing(pairs=path, heldout_share=0.01).build(lambda done, total: None)
    assert {e.metadata["source"] for e in built.splits["train"]} <= {"CCO", "CCCC"} and built.splits["train"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("CCO OCCO\nCCO\n", "line 2: 1 columns; give two SMILES"),
        ("", "no usable"),
        ("CCO CCO\n", r"no usable pair \(left out: 1 both molecules are the same\)"),
    ],
)
def test_a_bad_pairs_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs(write(tmp_path / "pairs.txt", text), 40, lambda done, total: None)
    with pytest.raises(InputError, match="no such file"):
        read_pairs(tmp_path / "none.txt", 40, lambda done, total: None)


def test_published_pairs_are_read(tmp_path: Path) -> None:
    lines = (real_data("hgraph2graph") / "drd2" / "train_pairs.txt").read_text().splitlines()[:300]
    found = read_pairs(write(tmp_path / "pairs.txt", "\n".join(lines)), 60, lambda done, total: None)
    assert len(found.pairs) + found.left_out.total() == 300 and len(found.pairs) > 280


def test_progress_goes_up_to_its_total_and_no_further(tmp_path: Path) -> None:
    """Would catch a bar of molecules that goes on with examples, of which there are more."""
    path = write(tmp_path / "m.smi", "\n".join("C" * n + end for n in range(3, 12) for end in ("O", "N", "C(=O)O")))
    reports: list[tuple[int, int]] = []
    task = DrugEditing(molecules=path, feedback_share=1.0, varied=True, similarity=0.2, heldout_share=0.1)
    built = task.build(lambda done, total: reports.append((done, total)))
    assert len(built.splits["train"]) > 27  # molecules
    assert len({total for _, total in reports}) == 1 and reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1]
