"""Fine-tune the recommender on a dataset and write a checkpoint."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "train")
