"""Asking: examples in, requests to a teacher out; and its responses in, records out.

    settings.py          the [generation] table of a job      plan.py        which examples to capture, tokenised
    prompter.py          prompts from templates               requests.py    requests for scoring
    prompt_templates.py  Jinja templates and worked examples  rationales.py  generate, select, retry with a hint
    selection.py         which samples to keep, by their labels (cache/answers parses and compares them)
    stop_texts.py        generate up to the stop text, where it counts

Knows nothing of engines, units or stores. To add a built-in template, add a .jinja file to templates/.
Public names: GenerationSettings, plan_capture, Prompter, generate_records, select_samples.
"""
