"""Training as its users meet it: it learns, goes on after a kill, and says what is wrong."""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import run as torchrun
from typer.testing import CliRunner

from pixloc_ros.alignment.levenberg_marquardt import minimize
from pixloc_ros.errors import ConfigError, DataError, TrainingError
from pixloc_ros.features import weights
from pixloc_ros.features.pyramid import FeatureExtractor
from pixloc_ros.training import checkpoint, run
from pixloc_ros.training.config import TrainConfig, load
from pixloc_ros.training.distributed import DistributedWorker
from pixloc_ros.training.feeding import draw
from pixloc_ros.training.initial_poses import draw_initial_poses
from pixloc_ros.training.loop import Trainer
from pixloc_ros.training.losses import mean_error_px
from pixloc_ros.training.objective import batch_loss, policy_of
from pixloc_ros.training.pairs import PairBatch, PairSource
from pixloc_ros.training.records import Records, read
from pixloc_ros.training.sources import open_sources
from pixloc_ros.training.unrolled import level_systems, refine
from pixloc_ros.training.validation import Validation
from research.__main__ import build as research

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ALONE = DistributedWorker(0, 1, torch.device("cpu"))
ADAM_BETA = 0.9  # of the first moment


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of blobs of several sizes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(6):
        layers = [
            cv2.resize(rng.uniform(0, 255, (192 // s, 256 // s, 3)), (256, 192))
            for s in (4, 12, 40)
        ]
        cv2.imwrite(str(folder / f"{i}.png"), np.mean(layers, axis=0))
    return folder


def settings(photos: Path, **changes: object) -> TrainConfig:
    """Six steps of two small pairs."""
    values = {
        "data": [{"kind": "photos", "path": str(photos), "points": 64}],
        "steps": 6,
        "batch": 2,
        "size": (96, 64),
        "device": "cpu",
        "model": {"init": "compact_seed"},
        "optimizer": {"lr": 1e-4, "encoder_lr": 1e-5},
        "checkpoint_every": 3,
        "log_every": 2,
        "validation": {"every": 0},
    }
    return TrainConfig.model_validate(values | changes)


def source_of(config: TrainConfig) -> PairSource:
    return open_sources(config.data, config.size, "cpu", config.augmentation)


class Spoiled:
    """A source that gives NaN for images in some of its batches."""

    def __init__(self, source: PairSource, bad: range):
        self.source, self.bad, self.given = source, bad, 0
        self.name, self.skipped = source.name, Counter()

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, count: int, generator: torch.Generator) -> PairBatch:
        batch = self.source.sample(count, generator)
        self.given += 1
        if self.given - 1 in self.bad:
            return replace(batch, query_rgb=batch.query_rgb * torch.nan)
        return batch


# --- what is trained is what runs


@pytest.fixture(scope="module")
def problems(photos: Path) -> tuple[TrainConfig, PairBatch, list, torch.Tensor, list]:
    """Three pairs, their problems at all levels, and starts."""
    config = settings(photos, batch=3, size=(192, 128))
    trainer = Trainer(config, ALONE, Path("unused"))
    drawn = draw(source_of(config), config, ALONE, 0)
    batch = drawn.batch
    visible = batch.visible.clone()
    visible[1, 40:] = False  # padding
    batch = replace(batch, visible=visible)
    with torch.no_grad():
        packed, damping = trainer.network.eval()(torch.cat([batch.reference_rgb, batch.query_rgb]))
    starts = [draw_initial_poses(batch, px, drawn.generator) for px in (12.0, 6.0, 2.0)]
    return config, batch, packed, damping, starts


def test_pairs_in_a_batch_do_not_meet(problems: tuple) -> None:
    config, batch, packed, damping, starts = problems
    policy, architecture = policy_of(config), weights.build("compact").architecture
    together = refine(
        level_systems(packed, architecture, batch, policy), starts, damping, 3, policy
    )
    for i in range(len(batch)):
        one, pair = torch.tensor([i]), torch.tensor([i, i + len(batch)])
        systems = level_systems([maps[pair] for maps in packed], architecture, batch[one], policy)
        alone = refine(systems, [start[one] for start in starts], damping, 3, policy)
        for level in range(3):
            expected = together[level][one].matrix()
            torch.testing.assert_close(alone[level].matrix(), expected, atol=1e-4, rtol=0)


def test_without_unrolling_poses_are_the_same_and_the_gradient_is_of_the_last_step(
    problems: tuple,
) -> None:
    config, batch, packed, damping, starts = problems
    policy, architecture = policy_of(config), weights.build("compact").architecture
    systems = level_systems(packed, architecture, batch, policy)
    before = refine(systems, starts, damping, 2, policy)
    learned = damping.clone().requires_grad_()
    gradients, poses = {}, {}
    for name, begin, steps, unrolled in (
        ("whole", starts, 3, True),
        ("last of three", starts, 3, False),
        ("one step", before, 1, True),
    ):
        ends = refine(systems, begin, learned, steps, policy, unrolled=unrolled)
        off_px = torch.stack([mean_error_px(batch, end).sum() for end in ends]).sum()
        gradients[name] = torch.autograd.grad(off_px, learned)[0]
        poses[name] = torch.stack([end.matrix() for end in ends]).detach()
    torch.testing.assert_close(poses["last of three"], poses["whole"], atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients["last of three"], gradients["one step"])
    assert not torch.allclose(gradients["whole"], gradients["one step"], rtol=0.1)


def test_a_step_in_training_is_a_step_of_the_localizer(problems: tuple) -> None:
    config, batch, packed, damping, starts = problems
    policy, architecture = policy_of(config), weights.build("compact").architecture
    ends = refine(level_systems(packed, architecture, batch, policy), starts, damping, 1, policy)
    compared = 0
    for i in range(len(batch)):
        one, pair = torch.tensor([i]), torch.tensor([i, i + len(batch)])
        systems = level_systems([maps[pair] for maps in packed], architecture, batch[one], policy)
        for level, (system, start, end) in enumerate(zip(systems, starts, ends, strict=True)):
            present = system.present[0]
            of_map = replace(
                system,
                points=system.points[0, present],
                reference=system.reference[0, present],
                confidence=system.confidence[0, present],
                present=None,
            )
            found = minimize(of_map, start[one], damping[level], 1, policy)
            improved = found.cost < of_map.linearize(start[one]).cost
            if improved:  # the localizer goes back otherwise
                T = found.T_cam_local.matrix()
                torch.testing.assert_close(T, end[one].matrix(), atol=1e-4, rtol=0)
                compared += 1
    assert compared > 3


def test_starts_are_as_far_off_as_was_asked(photos: Path) -> None:
    config = settings(photos)
    batch = source_of(config).sample(64, torch.Generator().manual_seed(1))
    off_px = mean_error_px(batch, draw_initial_poses(batch, 20.0, torch.Generator().manual_seed(2)))
    assert off_px.max() < 21 and off_px.min() < 2
    assert 8 < off_px.mean() < 12  # uniform from 0 to 20


# --- learning


def test_features_are_learned_from_nothing(photos: Path, tmp_path: Path) -> None:
    changes = {"model": {"init": "random"}, "optimizer": {"lr": 3e-3, "encoder_lr": 3e-3}}
    plain = {"augmentation": {"enabled": False}, "starts": {"max_px": (40, 20, 10)}}
    run.train(settings(photos, steps=15, batch=4, log_every=5, **changes, **plain), tmp_path)
    first, *_, last = read(tmp_path)
    assert last["info_nce"] < 0.85 * first["info_nce"]
    assert last["loss"] < first["loss"]


def test_the_way_of_the_paper_trains_every_part(photos: Path, tmp_path: Path) -> None:
    ways = {"objective": "unrolled", "info_nce": {"weight": 0, "final_weight": 0}}
    easy = {
        "size": (192, 128),
        "starts": {"max_px": (20, 20, 20)},
        "augmentation": {"enabled": False},
    }
    config = settings(photos, lm={"iterations": 5}, **ways, **easy)
    trainer = Trainer(config, ALONE, tmp_path)
    figures = trainer.step(draw(source_of(config), config, ALONE, 0))
    assert {"error_px_coarse", "error_px_middle", "error_px_fine"} <= figures.keys()
    assert all(bool((p.grad != 0).any()) for p in trainer.optimizer.parameters)


def test_gradients_are_limited_before_the_step(photos: Path, tmp_path: Path) -> None:
    trainer = Trainer(settings(photos), ALONE, tmp_path)
    for parameter in trainer.optimizer.parameters:
        parameter.grad = torch.full_like(parameter, 3.0)
    assert trainer.optimizer.clip() > 1000
    norm = torch.stack([p.grad.norm() for p in trainer.optimizer.parameters]).norm()
    assert norm == pytest.approx(1.0, rel=1e-3)


def test_trainings_are_compared_on_the_held_out_scenes_of_all(photos: Path, tmp_path: Path) -> None:
    held_out = shutil.copytree(photos, tmp_path / "elsewhere")
    for name, folder in (("here", photos), ("there", held_out)):
        place = {"kind": "photos", "path": str(folder), "points": 64}
        validation = {"every": 9, "pairs": 2, "data": [place]}
        config = settings(photos, name=name, steps=1, validation=validation)
        (tmp_path / f"{name}.yaml").write_text(config.to_yaml())
    files = [str(tmp_path / f"{name}.yaml") for name in ("here", "there")]
    command = ["training-comparison", *files, "--output", str(tmp_path / "runs")]
    result = CliRunner().invoke(research(), command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    errors = json.loads((tmp_path / "runs" / "errors.json").read_text())
    rows = {case.partition(" on ")[0] for case in errors}
    places = {case.partition(" on ")[2] for case in errors}
    assert rows == {"untrained", "here", "there"} and len(places) == 2
    assert all(len(next(iter(errors[case].values()))) == 2 for case in errors)
    weights.load(str(tmp_path / "runs" / "there" / "there.safetensors"))


# --- bad numbers, bad files, kills


def trained(config: TrainConfig, source: PairSource, folder: Path) -> Trainer:
    trainer = Trainer(config, ALONE, folder)
    for _ in trainer.run(source, Validation(config, ALONE)):
        pass
    return trainer


def test_a_step_without_a_finite_loss_is_left_out_and_counted(photos: Path, tmp_path: Path) -> None:
    config = settings(photos, prefetch=0)
    trainer = trained(config, Spoiled(source_of(config), range(2, 4)), tmp_path)
    assert trainer.progress.skipped == 2 and trainer.progress.steps == 6
    for network in (trainer.network, trainer.average.network):
        assert all(value.isfinite().all() for value in network.state_dict().values())
    assert read(tmp_path)[-1]["skipped_steps"] > 1


def test_too_many_of_them_end_the_run_and_keep_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    config = settings(photos, prefetch=0, max_bad_steps=2)
    with pytest.raises(TrainingError, match=r"2 steps in a row.*checkpoint\.safetensors"):
        trained(config, Spoiled(source_of(config), range(4, 9)), tmp_path)
    trainer = Trainer(config, ALONE, tmp_path)
    trainer.resume()
    assert trainer.progress.steps == 3
    assert all(value.isfinite().all() for value in trainer.network.state_dict().values())


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint.safetensors")


def test_a_killed_run_goes_on_to_the_very_same_weights(photos: Path, tmp_path: Path) -> None:
    config, whole, killed = settings(photos), tmp_path / "whole", tmp_path / "killed"
    run.train(config, whole)
    (tmp_path / "train.yaml").write_text(settings(photos, steps=6).to_yaml())
    command = [sys.executable, "-m", "pixloc_ros.cli.main", "train", str(tmp_path / "train.yaml")]
    command += ["--output", str(killed)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (killed / "checkpoint.safetensors").exists():
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = run.train(config, killed, resume=True)
    expected, found = final(whole), final(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert done.weights.read_bytes() == (whole / done.weights.name).read_bytes()
    assert [r["step"] for r in read(killed)] == [r["step"] for r in read(whole)]


def test_other_settings_cannot_go_on(photos: Path, tmp_path: Path) -> None:
    trainer = Trainer(settings(photos), ALONE, tmp_path)
    trainer.save()
    other = settings(photos, batch=3, augmentation={"fog": 0.5})
    with pytest.raises(
        TrainingError, match=r"augmentation.fog: 0.2 -> 0.5; batch: 2 -> 3"
    ) as error:
        Trainer(other, ALONE, tmp_path).resume()
    assert "\n" not in str(error.value)
    with pytest.raises(TrainingError, match="processes: 1 -> 2"):
        checkpoint.read(trainer.checkpoint, trainer.config, 2, {}, trainer.optimizer.adam)


def test_a_full_disk_leaves_the_last_checkpoint(photos: Path, tmp_path: Path) -> None:
    trainer = Trainer(settings(photos), ALONE, tmp_path)
    trainer.save()
    before = trainer.checkpoint.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # of a file: as good as full
    try:
        with pytest.raises(
            DataError, match=r"cannot write .*checkpoint.safetensors: File too large"
        ):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert trainer.checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_folder_that_holds_a_run_is_not_written_over(photos: Path, tmp_path: Path) -> None:
    Trainer(settings(photos), ALONE, tmp_path).save()
    with pytest.raises(TrainingError, match="--resume"):
        run.train(settings(photos), tmp_path)


def test_a_checkpoint_that_is_none(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no")
    with pytest.raises(TrainingError, match=r"cannot read .*checkpoint"):
        run.train(settings(photos), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: [{kind: photos, path: x}]\nstep: 3", "unknown key 'step': did you mean 'steps'"),
        ("data: [{kind: photos, pth: x, path: x}]", r"data.0.photos.pth': did you mean 'path'"),
        ("data: [{kind: photos, path: x}]\nloss: {}", "unknown key 'loss'"),
        ("data: [{kind: photos, path: x}]\nbatch: 0", "'batch' = 0: Input should be greater"),
        ("data: [{kind: films, path: x}]", "'films'"),
        ("data: []", "at least 1 item"),
        ("steps: 3", "'data'"),
        ("- 1", "not a mapping"),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "training").glob("*.yaml")), ids=str)
def test_the_configurations_of_the_package_load(path: Path, tmp_path: Path) -> None:
    config = load(path)
    assert config.name == path.stem
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load(tmp_path / "again.yaml") == config


def test_weights_of_another_architecture(photos: Path, tmp_path: Path) -> None:
    model = {"architecture": "vgg16", "init": "compact_seed"}
    with pytest.raises(ConfigError, match="compact_seed are of the network compact"):
        Trainer(settings(photos, model=model), ALONE, tmp_path)


def test_networks_begin_alike_when_the_seed_is_the_same(photos: Path, tmp_path: Path) -> None:
    model = {"init": "random"}
    one, again, other = (
        Trainer(settings(photos, model=model, seed=seed), ALONE, tmp_path).network.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


# --- a small network from a large one


def test_a_small_network_learns_to_see_as_a_large_one(photos: Path, tmp_path: Path) -> None:
    config = settings(
        photos,
        objective="distill",
        steps=12,
        model={"architecture": "fast", "init": "compact_seed"},
        optimizer={"lr": 3e-3, "encoder_lr": 0, "damping_lr": 0},
    )
    trainer = Trainer(config, ALONE, tmp_path)
    figures = list(trainer.run(source_of(config), Validation(config, ALONE)))
    for level in ("coarse", "middle", "fine"):
        name = f"feature_error_{level}"
        assert figures[-1][name] < 0.8 * figures[0][name]
    seed = weights.load("compact_seed").network.state_dict()
    for name, value in trainer.network.network.state_dict().items():
        if name.startswith(("enc.", "theta")):
            assert torch.equal(value, seed[name]), name
    again = Trainer(config, ALONE, tmp_path)
    again.resume()
    assert again.progress.steps == 12


# --- what is left at the end


def test_the_weights_of_a_run_serve_the_localizer(photos: Path, tmp_path: Path) -> None:
    validation = {"every": 2, "pairs": 3}
    config = settings(photos, steps=2, name="mine", validation=validation, data_licence="ours")
    done = run.train(config, tmp_path)
    assert done.weights == tmp_path / "mine.safetensors" and done.curves.stat().st_size > 10_000
    assert load(tmp_path / "config.yaml") == config
    figures = {name.rpartition("/")[2]: value for name, value in done.figures.items()}
    assert 0 <= figures["converged"] <= figures["recall_1px"] <= figures["recall_5px"] <= 1
    assert 0 <= figures["area_5px"] <= figures["recall_5px"]
    about = json.loads((tmp_path / "mine.json").read_text())
    assert about["licence"] == "ours" and about["model"] == "compact"
    card = (tmp_path / "mine.md").read_text()
    assert about["sha256"] in card and f"photos {photos.name} (6 " in card and "96x64" in card

    image = cv2.imread(str(photos / "0.png"))
    ours, seed = FeatureExtractor(str(done.weights)), FeatureExtractor()
    assert ours.model_id == "mine" and ours.sha256 == about["sha256"]
    for of_ours, of_seed in zip(
        ours.extract(image).levels, seed.extract(image).levels, strict=True
    ):
        assert 0 < (of_ours.rows - of_seed.rows).abs().mean() < 0.1  # two gentle steps away


def test_figures_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install pixloc_ros[train]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Records(tmp_path, 0, enabled=True) as records:
        records.write(5, {"loss": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(5, 0.5)]


# --- several processes

RANK = """
import sys
from pathlib import Path
import torch
from pixloc_ros.training.config import load
from pixloc_ros.training.distributed import this_worker
from pixloc_ros.training.feeding import draw
from pixloc_ros.training.loop import Trainer
from pixloc_ros.training.sources import open_sources
from pixloc_ros.training.validation import Validation

config, folder = load(Path(sys.argv[1])), Path(sys.argv[2])
with this_worker(config.device) as worker:
    torch.set_num_threads(1)
    trainer = Trainer(config, worker, folder / f"run{worker.rank}")
    source = open_sources(config.data, config.size, worker.device, config.augmentation)
    first = draw(source, config, worker, 0).batch.reference_rgb
    for _ in trainer.run(source, Validation(config, worker)):
        pass
    state = {"first": first, "network": trainer.network.state_dict()}
    torch.save(state, folder / f"{worker.rank}.pt")
"""


def test_two_processes_train_one_network(photos: Path, tmp_path: Path) -> None:
    config = settings(photos, steps=1, model={"init": "compact_seed", "freeze_norms": True})
    (tmp_path / "train.yaml").write_text(config.to_yaml())
    (tmp_path / "rank.py").write_text(RANK)
    program = [tmp_path / "rank.py", tmp_path / "train.yaml", tmp_path]
    torchrun.main(["--standalone", "--nproc-per-node=2", *map(str, program)])
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert not torch.equal(one["first"], two["first"])
    assert one["network"].keys() == two["network"].keys()
    assert all(torch.equal(one["network"][name], two["network"][name]) for name in one["network"])
    assert (tmp_path / "run0" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run1").exists()  # only the first process writes

    moments = {k: v for k, v in final(tmp_path / "run0").items() if k.endswith("exp_avg")}
    for index, expected in enumerate(mean_gradients(config)):
        found = moments[f"adam.{index}.exp_avg"] / (1 - ADAM_BETA)
        tolerance = 1e-3 * float(expected.abs().max())
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def mean_gradients(config: TrainConfig) -> list[torch.Tensor]:
    """Of the first step over the pairs of two processes, limited, in the optimiser's order."""
    trainer, source = Trainer(config, ALONE, Path("unused")), source_of(config)
    for rank in (0, 1):
        drawn = draw(source, config, DistributedWorker(rank, 2, ALONE.device), 0)
        images = torch.cat([drawn.batch.reference_rgb, drawn.batch.query_rgb])
        packed, damping = trainer.network(images)
        loss = batch_loss(config, trainer.network.architecture, packed, damping, drawn)
        (loss.total / 2).backward()
    trainer.optimizer.clip()
    return [p.grad for group in trainer.optimizer.adam.param_groups for p in group["params"]]
