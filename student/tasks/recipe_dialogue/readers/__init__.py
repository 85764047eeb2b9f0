"""Readers: public data sets of recipe conversations in, Conversations out. One file a data set.

    cookdial.py         CookDial: a folder with dialog/*.json and recipe/*.json
    wizard_of_tasks.py  Wizard of Tasks: wizard_of_tasks_cooking_v1.0.json, and recipes beside it
    extractive.py       Wizard of Tasks Extractive: a folder with train.json, validation.json and test.json
    synthetic.py        recipes and dialogues from a grammar, for machines without a data set
    json_files.py       JSON files and typed fields, with messages that name file and place

Raise InputError with file and place for anything that is not of the public form.
"""
