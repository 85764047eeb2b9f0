"""Segments of the index: files with columns about some units and their examples. A snapshot is a list of segments.

    columns.py     Segment: the columns; from commits, without some examples, several as one
    keys.py        the keys of a segment, in the order of its examples and sorted
    file.py        a segment as a Zarr group in one zip file, and reading a part of it
    files.py       write and read segments of a store; a lost one is made again from its commits
    building.py    the segments of everything that is committed now, from those of a snapshot and the new commits

A segment never changes. It costs what it contains, so a snapshot costs what was added. Knows no snapshots.
"""
