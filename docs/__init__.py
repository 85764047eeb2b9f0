"""The documentation: pages in MyST Markdown. `docs.generate` writes the pages that repeat facts of the code."""
