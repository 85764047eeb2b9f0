"""The instructions of ChatDrug (Liu et al., ICLR 2024): what each asks for, and the change that counts as a hit."""

from dataclasses import dataclass

from student.tasks.drug_editing.molecules import DECIMALS, Molecule


@dataclass(frozen=True, slots=True)
class Change:
    """A property, the direction in which it must move (+1 or -1), and the thresholds of a loose and a strict hit."""

    name: str
    direction: int
    loose: float
    strict: float

    def is_hit(self, before: Molecule, after: Molecule, strict: bool) -> bool:
        """Whether the property moves by more than the threshold. Equality is a miss."""
        difference = round(self.direction * (after.properties[self.name] - before.properties[self.name]), DECIMALS)
        return difference > (self.strict if strict else self.loose)

    @property
    def is_count(self) -> bool:
        """Whether the property counts atoms or groups."""
        return self.name in ("acceptors", "donors")

    def format(self, value: float) -> str:
        """A value or a difference of the property, as texts state it."""
        return f"{value:.{0 if self.is_count else 2 if self.name == 'QED' else 1}f}"

    def describe(self, before: Molecule, after: Molecule) -> str:
        """The change in words, as rationales state it."""
        size = abs(after.properties[self.name] - before.properties[self.name])
        verb = ("rise" if self.direction > 0 else "fall") + ("" if self.is_count else "s")
        return f"{self.name} {verb} by {self.format(size)}"


LOGP_FALLS = Change("LogP", -1, 0, 0.5)
LOGP_RISES = Change("LogP", +1, 0, 0.5)
QED_RISES = Change("QED", +1, 0, 0.1)
QED_FALLS = Change("QED", -1, 0, 0.1)
TPSA_FALLS = Change("TPSA", -1, 0, 10)
TPSA_RISES = Change("TPSA", +1, 0, 10)
ACCEPTORS_RISE = Change("acceptors", +1, 0, 1)
DONORS_RISE = Change("donors", +1, 0, 1)

# By ChatDrug's number of the task: the words of the prompt, and the required changes.
INSTRUCTIONS: dict[int, tuple[str, tuple[Change, ...]]] = {
    101: ("more soluble in water", (LOGP_FALLS,)),
    102: ("less soluble in water", (LOGP_RISES,)),
    103: ("more like a drug", (QED_RISES,)),
    104: ("less like a drug", (QED_FALLS,)),
    105: ("more permeable", (TPSA_FALLS,)),
    106: ("less permeable", (TPSA_RISES,)),
    107: ("with more hydrogen bond acceptors", (ACCEPTORS_RISE,)),
    108: ("with more hydrogen bond donors", (DONORS_RISE,)),
    201: ("more soluble in water and with more hydrogen bond acceptors", (LOGP_FALLS, ACCEPTORS_RISE)),
    202: ("less soluble in water and with more hydrogen bond acceptors", (LOGP_RISES, ACCEPTORS_RISE)),
    203: ("more soluble in water and with more hydrogen bond donors", (LOGP_FALLS, DONORS_RISE)),
    204: ("less soluble in water and with more hydrogen bond donors", (LOGP_RISES, DONORS_RISE)),
    205: ("more soluble in water and more permeable", (LOGP_FALLS, TPSA_FALLS)),
    206: ("more soluble in water and less permeable", (LOGP_FALLS, TPSA_RISES)),
}


def all_hit(changes: tuple[Change, ...], before: Molecule, after: Molecule, strict: bool) -> bool:
    """Whether every required change is a hit."""
    return all(change.is_hit(before, after, strict) for change in changes)
