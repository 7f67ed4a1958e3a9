"""Rank the whole catalogue for held-out users and write a report."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "evaluate")
