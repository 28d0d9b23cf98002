"""Experiments around the product: `PYTHONPATH=tools python -m research --help`."""

from __future__ import annotations

import typer

from pixloc_ros.cli.main import run
from pixloc_ros.common.process import prepare_process


def build() -> typer.Typer:
    """Build the command line with all its commands, which import torch."""
    from research.ablations import ablations
    from research.baseline_shots import baseline_shots
    from research.benchmark_maps import benchmark_maps
    from research.commands import app
    from research.free_photos import free_photos
    from research.fusion import fusion
    from research.idle_threads import idle_threads
    from research.landscape import landscape
    from research.refinement import refinement
    from research.rolling_shutter import rolling_shutter
    from research.sensitivity import sensitivity
    from research.street_megadepth import street_megadepth
    from research.street_sessions import street_sessions
    from research.training_comparison import training_comparison
    from research.training_confidence import training_confidence
    from research.verification_models import verification_fit, verification_models
    from research.verification_places import verification_places
    from research.verification_shots import verification_shots
    from research.verification_table import verification_table
    from research.viewer_pictures import viewer_pictures

    app.command("ablations")(ablations)
    app.command("benchmark-maps")(benchmark_maps)
    app.command("free-photos")(free_photos)
    app.command("fusion")(fusion)
    app.command("idle-threads")(idle_threads)
    app.command("landscape")(landscape)
    app.command("refinement")(refinement)
    app.command("rolling-shutter")(rolling_shutter)
    app.command("sensitivity")(sensitivity)
    app.command("shots")(baseline_shots)
    app.command("street-megadepth")(street_megadepth)
    app.command("street-sessions")(street_sessions)
    app.command("training-comparison")(training_comparison)
    app.command("training-confidence")(training_confidence)
    app.command("verification-fit")(verification_fit)
    app.command("verification-models")(verification_models)
    app.command("verification-places")(verification_places)
    app.command("verification-shots")(verification_shots)
    app.command("verification-table")(verification_table)
    app.command("viewer-pictures")(viewer_pictures)
    return app


def main() -> None:
    """Entry point, like that of `pixloc`."""
    prepare_process()  # before torch is imported
    run(build())


if __name__ == "__main__":
    main()
