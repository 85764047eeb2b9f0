"""Files of examples: JSON Lines, compressed or not, Parquet, and the forms that published data has.

windows.py     lines of a file, folder or pattern, some thousand at a time
jsonl.py       a line as an Example, or the reason why it is none
line_forms.py  published forms of lines in the project's own keys
json_line.py   strict JSON of one line
json_file.py   strict JSON of one file
"""
