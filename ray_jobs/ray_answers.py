"""Whether Ray starts, or the cluster that `RAY_ADDRESS` names answers; for the doctor."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from recsys.doctor.finding import Finding
from recsys.doctor.tokens import MODE, TOKEN, token_in

CHECK = "Ray"
START_S = 90.0
"""Seconds in which a Ray starts and runs a task; seven on two idle cores."""
ANSWER_S = 10.0
_TASK = """
import json, os, ray
address = os.environ.get("RAY_ADDRESS")
ray.init(address or "local", num_cpus=None if address else 1, logging_level="ERROR",
         log_to_driver=False, **({} if address else {"include_dashboard": False}))
count = ray.get(ray.remote(lambda: 1).remote())
print(json.dumps({k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")}))
"""


def check_ray(environ: Mapping[str, str], start_s: float = START_S) -> Finding:
    """Run a task on a Ray of this machine, or on the cluster that the environment names."""
    address = environ.get("RAY_ADDRESS", "")
    if urlsplit(address).scheme in ("http", "https"):
        return check_dashboard(address, token_in(environ, Path.home()))
    where = address or "a Ray of this machine"
    # As a job does: a Ray that is started here has a token of its own.
    own = {} if address else {MODE: "token", TOKEN: secrets.token_hex(32)}
    try:
        # In a process of its own: a wrong address is waited for without end.
        done = subprocess.run(
            [sys.executable, "-c", _TASK],
            env={**own, **environ},
            capture_output=True,
            text=True,
            timeout=start_s,
        )
    except subprocess.TimeoutExpired:
        advice = "check RAY_ADDRESS, the token and the network" if address else "see /tmp/ray"
        return Finding(CHECK, "fault", f"{where} ran no task within {start_s:g} s", advice)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        advice = "check RAY_ADDRESS, the token, and that versions agree; or see /tmp/ray"
        return Finding(CHECK, "fault", f"{where} ran no task: {last}", advice)
    has = ", ".join(f"{n:g} {k}" for k, n in json.loads(done.stdout.splitlines()[-1]).items())
    return Finding(CHECK, "ok", f"{version('ray')}, {where} ran a task and has {has}")


def check_dashboard(address: str, token: str | None) -> Finding:
    """Whether the dashboard, where jobs are submitted, lets us in and has the same Ray."""
    request = urllib.request.Request(f"{address.rstrip('/')}/api/version")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
            theirs = str(json.load(response).get("ray_version"))
    except urllib.error.HTTPError as error:
        advice = "give RAY_AUTH_TOKEN the token of that cluster"
        return Finding(CHECK, "fault", f"{address} answers {error.code}", advice)
    except (OSError, ValueError) as error:
        advice = "correct RAY_ADDRESS, or start the cluster"
        return Finding(CHECK, "fault", f"{address} does not answer: {error}", advice)
    ours = version("ray")
    if theirs != ours:
        advice = "one Ray everywhere: install theirs here, or build their image anew"
        return Finding(CHECK, "fault", f"{address} has Ray {theirs}, here is {ours}", advice)
    return Finding(CHECK, "ok", f"{address} answers, with Ray {ours}")
