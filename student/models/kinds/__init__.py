"""The kinds of student, one a file or folder.

To add one, bind STUDENT_KIND = MyKind(), a subclass of student.models.student_kind.StudentKind, in a file here. No
other file changes. A module outside this package works too, if the environment variable LOGITBANK_PLUGINS names it.
"""
