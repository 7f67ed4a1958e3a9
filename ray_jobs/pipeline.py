"""Prepare, train, index and evaluate; stages whose artifact is there already are kept."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "pipeline")
