"""One file a domain: how its examples are built and how an answer to them is judged."""
