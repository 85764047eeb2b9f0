"""Reports: what other jobs wrote, for people.

In: output folders of captures, training runs and evaluations. Out: results.json and one HTML page (report.py), tables
for the terminal (metrics_table.py, token_view.py), and how far a job is (run_state.py).
This room starts nothing: no engine, no training, no Ray. It knows no domain: metrics are those that an evaluation
contains, and pictures of answers come from the task that the job names.
To add a chart, write a function in figures.py and list it in page.py.
"""
