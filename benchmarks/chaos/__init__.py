"""Faults on purpose, on one machine: how soon each is noticed and mended, and what broke.

`make chaos` runs them. The names F1 to F29 are those of docs/operations.md.
"""
