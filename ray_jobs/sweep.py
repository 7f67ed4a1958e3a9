"""Try settings of model and training on validation rows; the best ones are in the artifact.

--space names a TOML file: which settings, in what range, how many trials.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from ray_jobs import command
from recsys.config.job import read_toml
from recsys.config.sweep import SweepConfig


def main(argv: list[str]) -> None:
    """Sweep, and print the artifact's path last."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--space", required="--help" not in argv)
    told, rest = flags.parse_known_args(argv)
    try:
        run = command.parse(__doc__ or "", rest)
        space = read_toml(told.space, SweepConfig)
        made = command.on_ray(run.job.storage, lambda: stages().sweep(run, space))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    for line in made.read_bytes("best.toml").decode().splitlines():
        print(line, file=sys.stderr)
    print(made.uri, flush=True)


def stages():
    """The stages; torch and DeepSpeed take seconds, before which a wrong flag should be told."""
    return importlib.import_module("ray_jobs.stages")


if __name__ == "__main__":
    main(sys.argv[1:])
