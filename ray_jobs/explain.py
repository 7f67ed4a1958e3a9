"""Explain what is recommended, to some users and over all of them, and write it as a page."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "explain")
