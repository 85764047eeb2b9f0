"""Code that runs inside vLLM's workers: it reduces logits to sparse rows, so that only rows are sent to the teacher.

In: the steps of vLLM's model runner, V1 or V2. Out: rows as bytes, with their requests and positions. `extension.py`
has the methods that the teacher calls, `runner_v1.py` and `runner_v2.py` the places of each runner that are wrapped,
`collector.py` what both share, and `transport.py` the form in which rows travel.
"""
