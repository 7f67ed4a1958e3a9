"""Teach a smaller language model a checkpoint's text vectors; index and evaluate it."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "distill")
