"""Drug editing: change a molecule so that a property moves in a given direction, and keep the molecule similar.

In: a SMILES file. Out: prompts with an edited molecule as the answer; scores of generated molecules.
RDKit is imported when examples are built, judged or drawn.
"""

from student.tasks.drug_editing.task import DrugEditing
from student.tasks.task import TaskKind

TASK = TaskKind("drug_editing", DrugEditing)
