"""`pixloc export`: write a network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def export(
    weights: Annotated[str, typer.Argument(help="name of packaged weights, or a path")],
    onnx: Annotated[Path, typer.Option(help="file to write")],
    size: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT of its images; default: any size that fits")
    ] = "",
) -> None:
    """Write a network as an ONNX file, for TensorRT, onnxruntime and others.

    Example: pixloc export fast --onnx fast.onnx --size 640x384
    """
    from pixloc_ros.cli.benchmark import parse_size
    from pixloc_ros.common.atomic_write import atomic_path
    from pixloc_ros.features.export import write_onnx

    with atomic_path(onnx) as part:
        write_onnx(part, weights, parse_size(size) if size else None)
    Console().print(f"network: {onnx}, {onnx.stat().st_size / 1e6:.1f} MB", highlight=False)
