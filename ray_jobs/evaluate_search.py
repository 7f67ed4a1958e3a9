"""Answer judged queries by words, by meaning and by both, and write a report on search."""

from ray_jobs import command

if __name__ == "__main__":
    command.run(__doc__ or "", "evaluate_search")
