"""The documentation: pages in MyST Markdown, and `docs.generate`, which writes the pages that repeat facts of the code."""
