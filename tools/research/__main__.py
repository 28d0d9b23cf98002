"""Experiments around the product: `PYTHONPATH=tools python -m research --help`."""

from __future__ import annotations

from pixloc_ros.cli.main import run
from research.baseline_shots import baseline_shots
from research.benchmark_maps import benchmark_maps
from research.commands import app

app.command("benchmark-maps")(benchmark_maps)
app.command("shots")(baseline_shots)

if __name__ == "__main__":
    run(app)
