"""Go on training the language model on a dataset's texts and write it as a backbone."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "pretrain")
