"""The registry of objectives."""

from cache.registry import Registry
from student.losses.objective import Objective

OBJECTIVES: Registry[Objective] = Registry("objective", "student.losses.objectives", "OBJECTIVE")
