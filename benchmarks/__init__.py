"""Measurements: each states what limits it, prints a table and ends with one JSON line."""
