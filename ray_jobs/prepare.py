"""Read raw interactions and items, check and clean them, and write a dataset."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "prepare")
