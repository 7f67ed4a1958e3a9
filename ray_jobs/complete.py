"""Fill missing categories and brands from the items' texts and write them as attributes."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "complete")
