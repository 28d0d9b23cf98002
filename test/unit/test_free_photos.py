"""Photos for training that are cut out of public repositories."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixloc_ros.common import image_files
from pixloc_ros.errors import DataError
from research import free_photos
from research.free_photos import TILE, PhotoRepository


def repository(folder: Path) -> str:
    """Commit a panorama and a photo that is half sky; return the commit."""
    rng = np.random.default_rng(0)
    light = rng.uniform(0.2, 1.0, (512, 1024, 3)).astype(np.float32)
    photo = rng.integers(0, 255, (900, 1200, 3), np.uint8)
    photo[:450] = 120
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "panorama.hdr"), light)
    cv2.imwrite(str(folder / "photo.png"), photo)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "photos"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return commit.stdout.strip()


def test_tiles_have_one_size_and_contrast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = repository(tmp_path / "clones" / "a" / "b")
    photos = PhotoRepository("a/b", commit, "CC0", ("panorama.hdr",), ("photo.png",))
    monkeypatch.setattr(free_photos, "REPOSITORIES", (photos,))
    free_photos.free_photos(tmp_path / "clones", tmp_path / "photos")
    names = sorted(path.relative_to(tmp_path / "photos") for path in tmp_path.rglob("*.jpg"))
    # Of the photo: the whole, and the two lower ones of four details.
    assert [str(name) for name in names] == [
        *(f"held_out/a_photo_{number:02d}.jpg" for number in range(3)),
        *(f"train/a_panorama_{number:02d}.jpg" for number in range(2)),
    ]
    for name in names:
        image = image_files.read(tmp_path / "photos" / name)
        assert image is not None and image.shape == (*TILE, 3)
    monkeypatch.setattr(free_photos, "REPOSITORIES", (replace(photos, commit="0" * 40),))
    with pytest.raises(DataError, match="a/b: no 0000"):
        free_photos.free_photos(tmp_path / "clones", tmp_path / "others")
