"""What a study of targets is made of: a teacher, and text that it read.

teacher.py     a causal model at a temperature
library.py     a small one that is trained here
text.py        text for a real one
material.py    a teacher and what it read
"""
