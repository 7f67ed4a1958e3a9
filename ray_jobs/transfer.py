"""Score a checkpoint on a dataset that it was not trained on: index it and evaluate."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "transfer")
