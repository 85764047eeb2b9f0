"""Distilling step-by-step with the options of its published command line.

In: the options. Out: three job files, of examples, of the student and of its evaluation, which are run.
"""
