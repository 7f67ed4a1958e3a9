"""Faults on purpose, on one machine: how soon each is noticed and mended, and what broke.

`make chaos` runs them: F1 to F12 and F29 break a training (docs/training.md has the list), F17 to
F23 a service.
"""
