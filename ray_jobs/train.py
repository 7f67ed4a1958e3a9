"""Fine-tune the recommender on a dataset and write a checkpoint.

With --dry-run it tells what would be done and what memory it takes, and starts nothing; where there
is no dataset yet, --items and --windows say how large it will be.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from ray_jobs import command


def main(argv: list[str]) -> None:
    """Train, or tell what training would do."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--dry-run", action="store_true")
    flags.add_argument("--items", type=int)
    flags.add_argument("--windows", type=int)
    told, rest = flags.parse_known_args(argv)
    if not told.dry_run:
        command.run(__doc__ or "", "train")
        return
    try:
        print(dry_run(command.parse(__doc__ or "", rest), told.items, told.windows))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


def dry_run(told: command.Command, items: int | None, windows: int | None) -> str:
    """What training would do, as text; see `recsys.training.plan.plan_at`."""
    os.environ.update({name: os.environ.get(name, value) for name, value in command.QUIET.items()})
    # Only now: torch and DeepSpeed take seconds, before which a wrong flag should be told.
    importlib.import_module("recsys.storage").configure_storage(told.job.storage)
    plans = importlib.import_module("recsys.training.plan")
    plan = plans.plan_at(told.job, told.place("dataset"), items, windows)
    return plans.render(plan, plans.this_machine())


if __name__ == "__main__":
    main(sys.argv[1:])
