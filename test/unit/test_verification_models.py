"""Models of the probability of being wrong are compared on shots, by all limits together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pixloc_ros.alignment.wrong_probability import Term, VerificationModel, WrongProbability
from research.verification_models import groups, read, row

EVIDENCE = {"sharpness": 0.5, "contrast": 0.7, "spread": 1.0, "runner_up_loss": 0.3}
SHOT = {
    **{"place": "town", "session": "clean", "prior": "2,3", "frame": "1.jpg", "reason": "ok"},
    **{"error_m": 0.02, "error_deg": 0.1, "sigma_m": 0.01, "limit": None, "cost": 0.4},
    "evidence": EVIDENCE,
}
SHARP = WrongProbability(bias=0.0, terms=(Term(evidence="sharpness", weight=100.0, typical=-0.4),))
MODEL = VerificationModel(
    weights_sha256="0" * 64,
    policy="pixloc_ros",
    plain=SHARP,
    full=SHARP,
    protection_factor=5.0,
    protection_risk=0.01,
)


def changed(**parts: Any) -> dict[str, Any]:
    return SHOT | {"evidence": EVIDENCE | parts.pop("evidence", {})} | parts


def test_a_model_accepts_what_no_limit_refuses(tmp_path: Path) -> None:
    elsewhere = {"error_m": None, "error_deg": None}
    shots = [
        SHOT,
        changed(error_m=0.06),  # beyond the protection level of 0.05 m
        changed(limit="far_from_prior"),
        changed(evidence={"runner_up_loss": 0.1}),
        changed(evidence={"sharpness": 0.3}),
        changed(error_m=0.4),  # neither right nor wrong
        changed(error_m=0.6),
        changed(**elsewhere, evidence={"sharpness": 0.3}),
        {"place": "town", "session": "clean", "nothing": "too_few_points"},
    ]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, shots)))
    named = dict(groups(list(read([tmp_path / "shots.jsonl"]))))
    assert [len(shots) for shots in named.values()] == [1, 7, 8]
    cells = row("model", "all", named["all"], MODEL).strip("| ").split(" | ")
    counts = [cell.partition(" (")[0] for cell in cells[2:]]
    assert counts == ["2 of 5", "1 of 1", "1 of 2", "2 of 3"]
