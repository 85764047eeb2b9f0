"""Generate measurements.md: one section a benchmark, every figure read from benchmarks/results/*.json.

In: the folder with the result files. Out: the page as MyST Markdown.
To add a result: write a function in the module of its benchmark, and call it in page.py.
"""
