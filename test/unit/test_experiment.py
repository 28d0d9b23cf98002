"""What tables of the lab rest on: intervals of shares, and errors that are kept and pooled."""

import json
from pathlib import Path

import numpy as np
import pytest

from research.experiment import LIMITS, Record, Share, area_under_recall, rows, share

MISSED = (np.inf, np.inf)  # how a shot without a result is counted


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_intervals_are_wilsons(hits: int, of: int, low: float, high: float) -> None:
    assert Share(hits, of).interval == pytest.approx((low, high), abs=1e-4)


def test_shots_without_a_result_are_misses() -> None:
    found = np.array([(0.05, 0.1), (0.2, 0.1), (0.05, 1.0), MISSED])
    assert [share(found, limit).hits for limit in LIMITS] == [1, 3]


def test_the_area_falls_with_the_errors_and_is_one_without_any() -> None:
    assert area_under_recall(np.zeros((3, 2)), 0.5) == 1
    assert area_under_recall(np.array([(0.25, 0.0), MISSED]), 0.5) == pytest.approx(0.25)
    assert area_under_recall(np.array([(0.0, np.rad2deg(0.01))]), 0.5) == pytest.approx(0.5)


def test_errors_of_several_places_are_pooled_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "errors.json"
    record = Record(file)
    record.add("whole", Path("maps/a"), np.array([(0.01, 0.1), MISSED]))
    record.add_all({"whole": np.array([(0.02, 0.2)]), "less": np.array([MISSED])}, Path("b"))
    again = Record(file)
    assert again.has("whole", Path("elsewhere/a")) and again.has("less", Path("b"))
    assert not again.has("less", Path("a"))
    np.testing.assert_array_equal(again.pooled()["whole"], [(0.01, 0.1), MISSED, (0.02, 0.2)])
    assert rows(again.pooled())["whole"]["shots"] == 3
    assert set(json.loads(file.read_text())) == {"whole", "less"}
