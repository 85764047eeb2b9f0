"""The command line: `logitbank VERB ...`.

In: arguments and TOML job files. Out: a result on standard output (text, or JSON with --json), progress and messages
on standard error, and an exit code: 0 success, 1 a check or a cluster job failed, 2 a mistake of the user, 130 Ctrl-C.
This room knows no algorithm: each verb loads its job, calls the room that does the work, and formats the result.

main.py has the parser and the exit codes, verbs.py what all verbs share, *_verbs.py one group of verbs each.
To add a verb, write its parser and its function in the module of its group. The function returns a Result. Import
heavy libraries inside it: `logitbank --help` imports none.
"""
