"""How examples lie in the rows of a model's inputs.

layout.py          padded or packed, for each kind of student
packing.py         several examples in one row
packing_probe.py   a test whether a model keeps packed examples apart
"""
