"""The daily loop: new events to a candidate that goes on from the live model, and a gate.

The exit code is 0 where the candidate passed and was promoted, with `--canary` to all users, and 3
where the gate stopped it or the canary rolled it back.
"""

from __future__ import annotations

import sys

import tyro
from pydantic import ValidationError

from ray_jobs.refresh_command import Arguments, run
from recsys.config import RefreshConfig, describe

if __name__ == "__main__":
    try:
        sys.exit(run(tyro.cli(Arguments, description=__doc__)))
    except ValidationError as error:
        sys.exit(f"error: {describe(error, RefreshConfig)}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
