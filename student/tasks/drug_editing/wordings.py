"""Instructions in words: one canonical wording, others for training, and new ones that no training example has.

Every phrase fits after "a molecule", and every frame takes a phrase and a molecule. A wording of two changes joins one
phrase for each with "and".
"""

from itertools import product

from student.tasks.drug_editing.instructions import INSTRUCTIONS, Change

Key = tuple[str, int]

CANONICAL_FRAME = "Make this molecule {wording}: {smiles}"

# Of each change: phrases of the training examples. The first one is canonical.
PHRASES: dict[Key, tuple[str, ...]] = {
    ("LogP", -1): (
        "more soluble in water",
        "more water-soluble",
        "better at dissolving in water",
        "easier to dissolve",
    ),
    ("LogP", +1): ("less soluble in water", "less water-soluble", "worse at dissolving in water", "harder to dissolve"),
    ("QED", +1): ("more like a drug", "more drug-like", "better as a drug", "closer to a medicine"),
    ("QED", -1): ("less like a drug", "less drug-like", "worse as a drug", "further from a medicine"),
    ("TPSA", -1): ("more permeable", "better at crossing membranes", "easier to absorb", "less polar on its surface"),
    ("TPSA", +1): ("less permeable", "worse at crossing membranes", "harder to absorb", "more polar on its surface"),
    ("acceptors", +1): (
        "with more hydrogen bond acceptors",
        "richer in hydrogen bond acceptors",
        "able to accept more hydrogen bonds",
        "with a higher number of acceptors",
    ),
    ("donors", +1): (
        "with more hydrogen bond donors",
        "richer in hydrogen bond donors",
        "able to donate more hydrogen bonds",
        "with a higher number of donors",
    ),
}

# Phrases of held-out prompts alone. No training example contains one of them.
NEW_PHRASES: dict[Key, tuple[str, ...]] = {
    ("LogP", -1): ("dissolving more readily in water", "with a higher water solubility"),
    ("LogP", +1): ("dissolving less readily in water", "with a lower water solubility"),
    ("QED", +1): ("with a greater drug-likeness", "more suitable as a medicine"),
    ("QED", -1): ("with a smaller drug-likeness", "less suitable as a medicine"),
    ("TPSA", -1): ("with a higher permeability", "passing more easily through membranes"),
    ("TPSA", +1): ("with a lower permeability", "passing less easily through membranes"),
    ("acceptors", +1): ("accepting more hydrogen bonds", "with extra acceptors of hydrogen bonds"),
    ("donors", +1): ("donating more hydrogen bonds", "with extra donors of hydrogen bonds"),
}

FRAMES = (
    CANONICAL_FRAME,
    "Change this compound into one {wording}: {smiles}",
    "I need a molecule {wording} than this one: {smiles}",
    "Start from {smiles} and find a molecule {wording}.",
)
NEW_FRAMES = (
    "Here is a compound: {smiles}\nPlease propose a variant {wording}.",
    "Could you turn {smiles} into something {wording}?",
    "We would like a derivative of {smiles} {wording}.",
)


def key_of(change: Change) -> Key:
    """The property and the direction of a change."""
    return change.name, change.direction


def canonical_prompt(number: int, smiles: str) -> str:
    """ChatDrug's instruction `number` for a molecule, in the canonical wording."""
    return CANONICAL_FRAME.format(wording=INSTRUCTIONS[number][0], smiles=smiles)


def wordings(number: int, is_new: bool) -> list[str]:
    """Every wording of an instruction without its frame; the first one of those for training is the canonical one."""
    phrases = NEW_PHRASES if is_new else PHRASES
    return [" and ".join(chosen) for chosen in product(*(phrases[key_of(c)] for c in INSTRUCTIONS[number][1]))]


def prompt(number: int, smiles: str, chance: float, is_new: bool) -> str:
    """An instruction for a molecule, in the wording and the frame that `chance`, in [0, 1), chooses."""
    frames, choices = NEW_FRAMES if is_new else FRAMES, wordings(number, is_new)
    frame, wording = divmod(int(chance * len(frames) * len(choices)), len(choices))
    return frames[frame].format(wording=choices[wording], smiles=smiles)
