"""Hard labels: -log q(label), the cross-entropy of ordinary training. It needs no teacher."""

from student.losses.objective import Objective

OBJECTIVE = Objective("hard_label", None, needs_teacher=False)
