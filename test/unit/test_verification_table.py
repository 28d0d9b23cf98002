"""What `research verification-table` counts."""

from __future__ import annotations

import json
from pathlib import Path

from research.verification_table import verification_table

FOUND = {"reason": "ok", "error_m": 0.05, "error_deg": 0.2}
TURNED = {"reason": "ok", "error_m": 0.05, "error_deg": 6.0}
REFUSED = {"reason": "low_contrast", "error_m": 0.05, "error_deg": 0.2}
NOTHING = {"nothing": "too_few_points"}


def write(path: Path, shots: list[dict], elsewhere: bool = False) -> Path:
    common = {"session": "clean", "prior": "2,3", "elsewhere": elsewhere}
    path.write_text("".join(json.dumps(common | shot) + "\n" for shot in shots))
    return path


def test_streets_are_pooled_and_wrong_poses_counted(tmp_path, capsys):
    files = [
        write(tmp_path / "04 street 3 night.jsonl", [FOUND, TURNED]),
        write(tmp_path / "14 street 4 night.jsonl", [REFUSED, NOTHING]),
    ]
    verification_table(files)
    shares = "4 | 0.50 (0.07 to 0.93) | 0.50 (0.07 to 0.93) | 1 | low_contrast 1, too_few_points 1"
    assert f"| street night | clean | 2,3 | {shares} |" in capsys.readouterr().out


def test_an_accepted_image_of_another_place_is_wrong(tmp_path, capsys):
    accepted = {"reason": "ok", "error_m": float("inf"), "error_deg": float("inf")}
    verification_table([write(tmp_path / "25 a on b.jsonl", [accepted, REFUSED], elsewhere=True)])
    row = "| a on b | clean | at keyframes | 2 |  | 0.50 (0.01 to 0.99) | 1 | low_contrast 1 |"
    assert row in capsys.readouterr().out
