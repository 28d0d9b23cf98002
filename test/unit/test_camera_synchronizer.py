"""Images of several cameras become groups by their stamps."""

from hypothesis import given
from hypothesis import strategies as st

from pixloc_ros.sensors.camera_synchronizer import CameraSynchronizer

CAMERAS = ("front", "left", "right")


def ms(value: float) -> int:
    return round(value * 1e6)


def three_cameras() -> CameraSynchronizer[str]:
    return CameraSynchronizer(CAMERAS, tolerance_s=0.02)


def test_a_group_is_complete_with_its_last_camera_in_the_order_of_cameras() -> None:
    synchronizer = three_cameras()
    assert synchronizer.add("right", ms(3), "r") == []
    assert synchronizer.add("front", ms(0), "f") == []
    (group,) = synchronizer.add("left", ms(5), "l")
    assert list(group.items()) == [("front", "f"), ("left", "l"), ("right", "r")]


def test_a_lost_camera_delays_one_group_and_comes_back() -> None:
    synchronizer = three_cameras()
    feed = [(c, t) for t in (0, 100, 200) for c in ("front", "left")]
    closed_at = {}
    for camera, t in feed:
        for group in synchronizer.add(camera, ms(t), f"{camera}{t}"):
            closed_at[next(iter(group.values()))] = t
    # The first group waited for the next image, those after it did not wait for the right camera.
    assert closed_at == {"front0": 100, "front100": 100, "front200": 200}
    for camera in CAMERAS:  # it is back, but nobody waited for it
        synchronizer.add(camera, ms(300), camera)
    assert synchronizer.late == {"right": 1}
    (group,) = (g for camera in CAMERAS for g in synchronizer.add(camera, ms(400), camera))
    assert set(group) == set(CAMERAS)


@given(st.permutations(CAMERAS), st.lists(st.integers(-9, 9), min_size=12, max_size=12))
def test_every_image_in_time_is_in_exactly_one_group(order, jitter_ms) -> None:
    synchronizer = three_cameras()
    stamps = {}
    groups = []
    for k in range(4):
        for i, camera in enumerate(order):
            stamps[f"{camera}{k}"] = 100 * k + jitter_ms[3 * k + i]
            groups += synchronizer.add(camera, ms(stamps[f"{camera}{k}"]), f"{camera}{k}")
    assert [sorted(g) for g in groups] == [sorted(CAMERAS)] * 4
    assert sorted(item for g in groups for item in g.values()) == sorted(stamps)


def test_two_images_of_one_camera_are_never_in_one_group() -> None:
    synchronizer = three_cameras()
    synchronizer.add("front", ms(0), "a")
    assert synchronizer.add("front", ms(10), "b") == [{"front": "a"}, {"front": "b"}]


def test_an_image_after_its_group_is_counted_and_awaited_from_then_on() -> None:
    synchronizer = CameraSynchronizer[str](("front", "left"), tolerance_s=0.02)
    synchronizer.add("front", ms(0), "f0")
    synchronizer.flush()
    assert synchronizer.add("left", ms(5), "l0") == []
    assert synchronizer.late == {"left": 1}
    assert synchronizer.add("front", ms(100), "f1") == []
    assert synchronizer.add("left", ms(105), "l1") == [{"front": "f1", "left": "l1"}]


def test_after_a_jump_back_of_the_clock_it_begins_anew() -> None:
    synchronizer = CameraSynchronizer[str](("front", "left"), tolerance_s=0.02)
    synchronizer.add("front", ms(5000), "a")
    assert synchronizer.add("left", ms(5000), "A")
    assert synchronizer.add("front", ms(10), "b") == []
    assert synchronizer.add("left", ms(10), "B") == []
    synchronizer.clear()
    synchronizer.add("front", ms(10), "b")
    assert synchronizer.add("left", ms(10), "B") == [{"front": "b", "left": "B"}]


def test_cameras_faster_than_the_tolerance_lose_nothing() -> None:
    synchronizer = CameraSynchronizer[str](("front", "left"), tolerance_s=0.02)
    groups = []
    for k in range(4):  # 100 Hz, the left one 1 ms later
        for camera, offset in (("front", 0), ("left", 1)):
            groups += synchronizer.add(camera, ms(10 * k + offset), f"{camera}{k}")
    assert groups == [{"front": f"front{k}", "left": f"left{k}"} for k in range(4)]
    assert not synchronizer.late


def test_a_camera_alone_waits_for_nobody_and_is_never_late() -> None:
    synchronizer = CameraSynchronizer[str](("",), tolerance_s=0.02)
    stamps_ms = (100, 110, 105, 0, 120)
    assert [synchronizer.add("", ms(t), str(t)) for t in stamps_ms] == [
        [{"": str(t)}] for t in stamps_ms
    ]
