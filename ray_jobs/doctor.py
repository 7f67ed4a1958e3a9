"""Say whether this machine has what the jobs and the service need, and what to do where not."""

from __future__ import annotations

import sys

import tyro
from rich.console import Console

from ray_jobs.doctor_checks import Arguments, examine
from recsys.doctor.finding import has_fault, show

if __name__ == "__main__":
    findings = examine(tyro.cli(Arguments, description=__doc__))
    show(findings, Console(highlight=False))
    sys.exit(1 if has_fault(findings) else 0)
