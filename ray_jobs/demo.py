"""The whole road on this machine: prepare, train, index, evaluate, serve, answered requests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import tyro
from rich.console import Console

from ray_jobs.local_cluster import LocalCluster, free_port

READY_SECONDS = 180
console = Console(highlight=False)


@dataclass(frozen=True)
class Arguments:
    """What the demo runs on."""

    data: str = ""
    """Directory with interactions and items; a generated world if not given."""
    config: str = "ray_jobs/configs/toy.toml"
    """Settings of the run."""
    output: str = "outputs/demo"
    """Directory for all artifacts; stages done there before are kept."""


def demo(arguments: Arguments) -> None:
    """Run every stage as a submitted job on a Ray of its own, which is stopped at the end."""
    output = str(Path(arguments.output).absolute())
    data = str(Path(arguments.data).absolute()) if arguments.data else f"{output}/world"
    started = time.perf_counter()
    common = ["--config", arguments.config, "--output", output]
    if not arguments.data:
        _headline("generate", started)
        subprocess.run([sys.executable, "-m", "ray_jobs.generate", "--output", data], check=True)
    _headline("start Ray", started)
    with LocalCluster() as cluster:
        for stage in ("prepare", "train", "index", "evaluate"):
            _headline(stage, started)
            flags = ["--data", data] if stage == "prepare" else []
            cluster.submit(["python", "-m", f"ray_jobs.{stage}", *common, *flags], stage)
        _headline("serve", started)
        _ask(_serve(cluster, output), data)
    console.print(f"\nThe report: {output}/report/report.html", style="bold")
    console.print(f"All done in {time.perf_counter() - started:.0f} s; Ray is stopped.")


def _headline(stage: str, started: float) -> None:
    console.rule(f"{stage}  ({time.perf_counter() - started:.0f} s)")


def _serve(cluster: LocalCluster, output: str) -> str:
    """Start serving and wait until it is ready; returns its URL."""
    port = free_port()
    places = ["--checkpoint", f"{output}/checkpoint", "--index", f"{output}/index"]
    command = ["python", "-m", "ray_jobs.serve", *places, "--port", str(port)]
    cluster.submit(command, "serve", wait=False)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_SECONDS
    while not cluster.answers(f"{url}/health/ready"):
        if time.monotonic() > deadline:
            told = cluster.logs("serve")[-3000:]
            raise RuntimeError(f"{url} was not ready within {READY_SECONDS} s:\n{told}")
        time.sleep(0.5)
    return url


def _ask(url: str, data: str) -> None:
    """Ask with a real user's last items, and search; show requests and answers."""
    rows = pq.read_table(f"{data}/interactions.parquet", columns=["user_id", "item_id"])
    user = rows["user_id"][0].as_py()
    history = [r["item_id"] for r in rows.slice(0, 200).to_pylist() if r["user_id"] == user][-5:]
    _show_titles("the history", history, data)
    _post(f"{url}/v1/recommend", {"history": history, "top_k": 5, "explain": True})
    _post(f"{url}/v1/search", {"text": "red backpack under 60", "history": history, "top_k": 3})


def _post(url: str, body: dict) -> None:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    console.print(f"\nPOST {url}", style="bold")
    console.print_json(json.dumps(body))
    console.print_json(json.dumps(answer, ensure_ascii=False))


def _show_titles(label: str, item_ids: list[str], data: str) -> None:
    items = pq.read_table(f"{data}/items.parquet", columns=["item_id", "title"]).to_pydict()
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    for item_id in item_ids:
        console.print(f"  {label}: {item_id}  {titles.get(item_id)}", markup=False)


if __name__ == "__main__":
    demo(tyro.cli(Arguments, description=__doc__))
