"""Work that a Ray cluster does: the same maps and poses as without, whatever is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from helpers import benchmark_trees as trees
from helpers.benchmark_trees import Street
from helpers.faults import children, cmdline, kill_one_after
from helpers.map_building import COUNT, build, make_model
from helpers.scene import write_scene
from pixloc_ros import BuildOptions, DriveSource, read_drives
from pixloc_ros.cli.main import build as build_cli
from pixloc_ros.common.parallel import Workers
from pixloc_ros.config.mapping import MappingConfig
from pixloc_ros.evaluation.datasets import localization
from pixloc_ros.maps.build.builder import BuildContext
from pixloc_ros.maps.files.colmap import ColmapModel

pytest.importorskip("ray", reason='Ray is optional: pip install "pixloc_ros[ray]"')

pytestmark = pytest.mark.slow

SUBMISSION = "Aachen_eval_pixloc_ros.txt"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of one machine with two cores; each machine costs seconds to start."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_map_is_the_same_though_a_worker_is_killed(address, tmp_path):
    write_scene(tmp_path, COUNT)
    model = make_model(tmp_path)
    kill = kill_one_after(3, ray_workers)
    workers = Workers(ray_address=address)
    built = build(model, tmp_path, tmp_path / "map", progress=kill, workers=workers)
    assert built.sha256 == build(model, tmp_path, tmp_path / "alone").sha256


def test_chunks_of_a_drive_give_one_map(address, street, tmp_path):
    """Two chunks, and what is matched between them, by workers without the drive's files."""
    alone = model_in_chunks(street, tmp_path / "alone", Workers())
    model = model_in_chunks(street, tmp_path / "ray", Workers(ray_address=address))
    T, T_alone = (np.stack([i.T_cam_world for i in each.images]) for each in (model, alone))
    assert len(T) == 8 and np.abs(T - T_alone).max() < 2e-3
    assert len(model.point_ids) == pytest.approx(len(alone.point_ids), rel=0.02)


def model_in_chunks(street: Path, work: Path, workers: Workers) -> ColmapModel:
    work.mkdir()
    mapping = MappingConfig(
        keyframe_spacing_m=1.5, chunk_keyframes=6, neighbours=2, places=0, rounds=1
    )
    source = DriveSource(drives=read_drives([street / "bag"]), mapping=mapping)
    model, _ = source.model(BuildOptions(workers=workers), BuildContext(work))
    done = [path.name.partition("-")[0] for path in work.glob("colmap-*/*-*.safetensors")]
    assert done.count("placed") == 2 and "meetings" in done
    return model


WORKING, IDLE = "ray::_extract_as_worker", "ray::IDLE"


def ray_workers() -> list[psutil.Process]:
    """Those with a task first: all of them may have nothing to do at the moment.

    Ray's agents are `ray::` as well; with one of them the whole node would end.
    """
    names = {process: cmdline(process) for process in children()}
    return [
        process
        for kind in (WORKING, IDLE)
        for process, name in names.items()
        if name.startswith(kind)
    ]


def test_a_benchmark_that_was_killed_goes_on_to_the_same_submission(
    address, street, tmp_path, monkeypatch
):
    """Of three queries one is done, the next line is cut off, and workers get one query each."""
    root = trees.aachen(tmp_path / "aachen", Street(street, queries=4), "1.1")
    expected = submission(root, tmp_path / "alone")
    shutil.copytree(tmp_path / "alone", tmp_path / "killed")
    (tmp_path / "killed" / SUBMISSION).unlink()
    frames = tmp_path / "killed" / "scenes" / "night" / "frames.jsonl"
    first, second, _ = frames.read_text().splitlines()
    frames.write_text(f"{first}\n{second[:100]}")
    monkeypatch.setattr(localization, "BATCH", 1)
    assert submission(root, tmp_path / "killed", "--ray", address) == expected
    done = frames.read_text().splitlines()
    assert done[0] == first and len(done) == 3


def submission(root: Path, output: Path, *more: str) -> str:
    """What is written for Aachen's server."""
    arguments = ["--root", str(root), "--output", str(output), "--scene", "night", *more]
    arguments = ["evaluate-dataset", "aachen-v1.1", *arguments, "--set", "threads=1"]
    result = CliRunner().invoke(build_cli(), arguments)
    if result.exception is not None:
        raise result.exception
    return (output / SUBMISSION).read_text()
