"""Encode every item with a checkpoint and write an index."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "index")
