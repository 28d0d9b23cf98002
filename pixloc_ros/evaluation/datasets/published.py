"""Results that others have published, as printed, to compare ours with.

Rows of one table share data, ground truth and thresholds; sources are in docs/guide/datasets.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from pixloc_ros.evaluation.datasets.protocol import PublishedRow

PAPER = "PixLoc, CVPR 2021"


def _rows(groups: Sequence[str], *rows: tuple[str, str, str]) -> tuple[PublishedRow, ...]:
    """Make rows of method, source and cells in the order of the groups; `-` means no figure."""
    made = []
    for method, source, text in rows:
        cells = dict(zip(groups, text.split(), strict=True))
        made.append(PublishedRow(method, source, cells))
    return tuple(made)


# Median cm/deg.
CAMBRIDGE = _rows(
    ("GreatCourt", "KingsCollege", "OldHospital", "ShopFacade", "StMarysChurch"),
    ("PixLoc", PAPER, "30/.14 14/.24 16/.32 5/.23 10/.34"),
    ("PixLoc, oracle start", PAPER, "21/.12 13/.24 16/.31 5/.22 9/.28"),
    ("Active Search", "hloc README", "24/.13 13/.22 20/.36 4/.21 8/.25"),
    ("hloc SP+SG", "hloc README", "17/.11 12/.21 14/.30 4/.19 7/.22"),
    ("ACE", "published table", "28/.1 18/.3 25/.5 5/.3 9/.3"),
    ("GLACE", "published table", "19/.1 19/.3 17/.4 4/.2 9/.3"),
    ("STDLoc", "CVPR 2025", "15.7/.06 15.0/.17 11.9/.21 3.0/.13 4.7/.14"),
    ("ULF-Loc", "arXiv 2605.04730", "7.5/.04 17.0/.19 10.3/.19 2.8/.14 3.7/.11"),
)
SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs", "mean")
# Median cm/deg; the mean column is the recall in percent below 5 cm 5 deg.
SEVEN_SCENES_DSLAM = _rows(
    SCENES,
    ("PixLoc", PAPER, "2/.80 2/.73 1/.82 3/.82 4/1.21 3/1.20 5/1.30 75.7"),
    ("PixLoc, oracle start", PAPER, "- - - - - - - 81.7"),
    (
        "hloc SP+SG, RGB-D points",
        "hloc README",
        "2/.80 2/.77 1/.79 3/.80 4/1.07 3/1.13 4/1.15 73.1",
    ),
    ("hloc SP+SG, SfM points", "hloc README", "2/.84 2/.93 1/.74 3/.92 5/1.27 4/1.40 5/1.47 -"),
    ("hloc", "counted", "2.4/.77 1.8/.75 .9/.59 2.6/.77 4.4/1.15 4.0/1.38 5.1/1.46 76.7"),
    (
        "Active Search",
        "counted",
        "2.7/.87 2.4/1.01 1.1/.82 3.8/1.15 6.6/1.69 5.4/1.72 3.8/1.01 68.8",
    ),
    ("DSAC* (RGB)", "counted", "1.8/.59 1.7/.77 1.0/.66 2.7/.79 3.9/1.05 3.9/1.24 3.5/.93 82.9"),
)
SEVEN_SCENES_SFM = _rows(
    SCENES,
    ("hloc", "counted", ".8/.11 .9/.24 .6/.25 1.2/.20 1.4/.15 1.1/.14 2.9/.80 95.7"),
    ("Active Search", "counted", ".4/.14 .5/.23 .5/.28 .8/.24 .9/.20 .6/.16 1.4/.44 98.5"),
    ("DSAC* (RGB)", "counted", ".5/.17 .8/.28 .5/.34 1.2/.34 1.2/.28 .7/.21 2.7/.78 97.8"),
)
# Recall in percent below (0.25 m, 2 deg) / (0.5 m, 5 deg) / (5 m, 10 deg).
AACHEN = _rows(
    ("day", "night"),
    ("PixLoc", PAPER, "64.3/69.3/77.4 51.0/55.1/67.3"),
    ("PixLoc, oracle start", PAPER, "68.0/74.6/80.8 57.1/69.4/76.5"),
    ("hloc SP+SG, top 50", PAPER, "89.6/95.4/98.8 86.7/93.9/100"),
    ("hloc + PixLoc", PAPER, "84.7/94.2/98.8 81.6/93.9/100"),
)
AACHEN_V11 = _rows(
    ("day", "night"),
    ("hloc SP+SG", "published table", "89.8/96.1/99.4 77.0/90.6/100"),
    ("hloc SP+LightGlue", "published table", "90.2/96.0/99.4 77.0/91.1/100"),
    ("LoFTR", "published table", "88.7/95.6/99.0 78.5/90.6/99.0"),
    ("MASt3R, top 20", "published table", "83.4/95.3/99.4 76.4/91.6/100"),
)
ROBOTCAR = _rows(
    ("day", "night"),
    ("PixLoc (server)", PAPER, "52.7/77.5/93.9 12.0/20.7/45.4"),
    ("hloc SP+SG (server)", PAPER, "56.9/81.7/98.1 33.3/65.9/88.8"),
    ("hloc + PixLoc (server)", PAPER, "56.9/82.0/98.1 34.9/67.7/89.5"),
    ("hloc SP+SG (the public queries)", "published table", "-/71.5/- -/30.4/-"),
    ("hloc ALIKED+LightGlue (the public queries)", "published table", "-/71.2/- -/40.6/-"),
)
CMU = _rows(
    ("urban", "suburban", "park"),
    ("PixLoc (server)", PAPER, "88.3/90.4/93.7 79.6/81.1/85.2 61.0/62.5/69.4"),
    ("hloc SP+SG (server)", PAPER, "95.5/98.6/99.3 90.9/94.2/97.1 85.7/89.0/91.6"),
    ("hloc + PixLoc (server)", PAPER, "96.9/98.9/99.3 93.3/95.4/97.1 87.0/89.5/91.6"),
)
# Recall in percent within 0.1 / 0.2 / 0.5 m.
FOUR_SEASONS = _rows(
    ("training", "validation", "test0", "test1"),
    ("hloc SP+SG", "hloc README", "- - 91.8/97.7/99.2 67.3/93.5/98.7"),
)
