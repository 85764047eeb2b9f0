"""Capture of one unit: planned examples go in, a committed part of a store comes out.

    start.py     describe a teacher and start it, through the registry of engines
    stoppable.py keep the answers that a teacher has given before it stops
    unit.py      ask a teacher about the examples of a unit, and write the answers

Knows nothing of Ray, of other units or of processes: cluster/capture distributes units to actors.
"""

from teacher_serving.capture.start import describe, start_teacher
from teacher_serving.capture.unit import Answers, UnitSummary, ask_teacher, store_answers

__all__ = ["Answers", "UnitSummary", "ask_teacher", "describe", "start_teacher", "store_answers"]
