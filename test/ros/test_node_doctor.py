"""`pixloc doctor --live` on live topics: what fits, and what is missing, named one by one."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.spatial.transform import Rotation

from helpers.messages import changed, shifted, without
from helpers.node_checks import examine
from pixloc_ros.common import image_files
from pixloc_ros.sensors import decoding


@pytest.mark.ros
@pytest.mark.slow
def test_a_robot_that_is_well_gets_no_complaint(
    rig: Any, node: Any, bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rclpy.qos import QoSProfile
    from tf2_msgs.msg import TFMessage

    rig.send("/tf_static", bag.on("/tf_static")[0])
    ticks = iter(range(10_000))

    def feed() -> None:
        tick = next(ticks)
        for topic in ("/image", "/camera_info", "/odom", "/gnss/fix"):
            rig.send(topic, shifted(bag.on(topic)[0], 0.05 * tick))
        rig.until(lambda: True, "")

    def no_complaint(findings: dict[str, Any]) -> None:
        wrong = {s: f for s, f in findings.items() if not f.fine}
        assert not wrong, wrong
        assert "frame 'camera_optical'" in findings["/image"].detail
        assert "'base_link' to 'camera_optical'" in findings["mounting"].detail
        assert "Hz" in findings["/odom"].detail
        assert "TRACKING" in findings["/pixloc_localizer"].detail

    def volatile_one(findings: dict[str, Any]) -> None:
        assert "quality of service of test_rig" in findings["/tf_static"].detail
        assert "volatile publisher" in findings["/tf_static"].remedy

    examine(monkeypatch, node[1], feed, no_complaint)
    rig.node.create_publisher(TFMessage, "/tf_static", QoSProfile(depth=1))
    examine(monkeypatch, node[1], feed, volatile_one)


@pytest.mark.ros
@pytest.mark.slow
def test_what_does_not_fit_together_is_named(
    bag: Any, monkeypatch: pytest.MonkeyPatch, domain: int
) -> None:
    from helpers.live import Rig

    image, info = bag.on("/image")[0], bag.on("/camera_info")[0]
    wrong = changed(info, **{"header.frame_id": "rear", "width": 2 * info.width})
    with Rig(domain) as rig:

        def feed() -> None:
            rig.send("/image", image)
            rig.send("/camera_info", wrong)
            rig.send("/odom", shifted(bag.on("/odom")[0], -5.0))
            rig.until(lambda: True, "")

        def named(findings: dict[str, Any]) -> None:
            assert "not running" in findings["/pixloc_localizer"].detail
            assert findings["/image"].fine
            assert findings["/gnss/fix"].detail.startswith("silent")
            wrong = {
                "camera frame": "'rear'",
                "image size": f"calibrated for {2 * info.width}x",
                "mounting": "does not join",
                "stamps": "ahead of odometry",
            }
            assert wrong.keys() <= findings.keys()
            for subject, part in wrong.items():
                assert not findings[subject].fine
                assert part in findings[subject].detail

        examine(monkeypatch, domain, feed, named)


@contextmanager
def listening(domain: int, inputs: dict[str, Any]) -> Iterator[Any]:
    """A node of the localizer's name, without its parameters, that listens and does no more."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor

    context = Context()
    rclpy.init(context=context, domain_id=domain)
    localizer = rclpy.create_node("pixloc_localizer", context=context)
    for topic, kind in inputs.items():
        localizer.create_subscription(kind, topic, lambda message: None, 1)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(localizer)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        yield localizer
    finally:
        executor.shutdown()
        thread.join()
        localizer.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize(
    ("topic", "changes", "subject", "detail"),
    [
        ("/camera_info", {"k": [0.0] * 9}, "/camera_info", "refused (camera_info_unusable)"),
        ("/camera_info", {"height": 7}, "image size", "calibrated for 320x7"),
        ("/odom", {"header.frame_id": "world"}, "odometry frames", "expected 'odom'"),
        ("/odom", {"child_frame_id": "wheel"}, "odometry frames", "'wheel'"),
    ],
)
def test_a_node_that_cannot_work_is_a_failure(
    bag: Any,
    monkeypatch: pytest.MonkeyPatch,
    domain: int,
    topic: str,
    changes: dict[str, Any],
    subject: str,
    detail: str,
) -> None:
    """With compressed images, whose size only their content tells."""
    from sensor_msgs.msg import CompressedImage

    from helpers.live import INPUTS, Rig

    image = bag.on("/image")[0]
    jpeg = image_files.encode(decoding.image_rgb(image))
    compressed = CompressedImage(header=image.header, format="jpeg", data=jpeg)
    samples = {t: bag.on(t)[0] for t in ("/camera_info", "/odom")} | {"/image": compressed}
    samples[topic] = changed(samples[topic], **changes)
    with Rig(domain, compressed=True) as rig:
        rig.send("/tf_static", bag.on("/tf_static")[0])
        ticks = iter(range(10_000))

        def feed() -> None:
            tick = next(ticks)
            for name, message in samples.items():
                rig.send(name, shifted(message, 0.05 * tick))
            rig.until(lambda: True, "")

        def only_that(findings: dict[str, Any]) -> None:
            assert subject in findings
            finding = findings[subject]
            assert (finding.fine, finding.needed) == (False, True), finding
            assert detail in finding.detail and finding.remedy
            others = {s: f for s, f in findings.items() if f.needed and not f.fine and s != subject}
            assert not others, others

        inputs = {**INPUTS, "/image/compressed": CompressedImage}
        del inputs["/image"]
        with listening(domain, inputs):
            examine(monkeypatch, domain, feed, only_that)


@pytest.mark.ros
@pytest.mark.slow
def test_what_the_localizer_draws_is_proposed_as_no_camera(
    monkeypatch: pytest.MonkeyPatch, domain: int
) -> None:
    from sensor_msgs.msg import Image

    from helpers.live import Rig

    def remapped(findings: dict[str, Any]) -> None:
        assert findings["/image"].remedy == "remap to /front/image"

    with listening(domain, {"/image": Image}) as localizer, Rig(domain, cameras=("front",)):
        localizer.create_publisher(Image, "~/overlay", 1)
        examine(monkeypatch, domain, lambda: None, remapped)


@pytest.mark.ros
@pytest.mark.slow
def test_topics_of_other_names_and_types_are_found(
    monkeypatch: pytest.MonkeyPatch, domain: int
) -> None:
    import rclpy
    from nav_msgs.msg import Odometry
    from rclpy.context import Context
    from sensor_msgs.msg import CompressedImage

    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("driver", context=context)
    node.create_publisher(CompressedImage, "/image", 1)
    node.create_publisher(CompressedImage, "/gnss/fix", 1)
    node.create_publisher(Odometry, "/wheel/odom", 1)

    def named(findings: dict[str, Any]) -> None:
        assert "silent" in findings["/image"].detail  # the node would take it as it is
        assert "published as sensor_msgs/msg/CompressedImage" in findings["/gnss/fix"].detail
        assert "remap" in findings["/gnss/fix"].remedy
        assert "/wheel/odom" in findings["/odom"].remedy
        assert "nobody publishes" in findings["/camera_info"].detail

    try:
        examine(monkeypatch, domain, lambda: None, named)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def doctor_command(domain: int, *options: str) -> subprocess.CompletedProcess[str]:
    from helpers.live import environment

    code = "import sys; from pixloc_ros.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "doctor", "--live", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment(domain))


@pytest.mark.ros
@pytest.mark.slow
def test_a_launch_file_is_proposed_for_what_a_robot_publishes(domain: int, tmp_path: Path) -> None:
    from helpers.live import Rig

    file = tmp_path / "robot.launch.yaml"
    with Rig(domain, "/front"):
        for seconds in ("2", "16", "64"):  # a busy machine discovers late
            done = doctor_command(domain, "--seconds", seconds, "--write", str(file), "--map", "m")
            assert done.returncode == 0, done.stderr
            if "gnss" in file.read_text() and "/front/odom" in file.read_text():
                break
    assert "image_topic:=/front/image camera_info_topic:=/front/camera_info" in done.stdout
    (action,) = yaml.safe_load(file.read_text())["launch"]
    given = {each["name"]: each["value"] for each in action["include"]["arg"]}
    assert given["odom_topic"] == "/front/odom"
    assert given["gnss_topic"] == "/front/gnss/fix"
    assert given["map"] == str(Path("m").resolve())


@pytest.mark.ros
@pytest.mark.slow
def test_the_command_says_what_is_missing_and_fails(domain: int) -> None:
    done = doctor_command(domain, "--seconds", "0.2")
    assert done.returncode == 1
    assert "nobody publishes" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.ros
@pytest.mark.slow
def test_a_wrong_mounting_shows_in_the_drive(
    rig: Any, node: Any, bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The camera is turned by 3 degrees to the left of where /tf_static has it."""
    from pixloc_ros.ros.mounting_check import MOUNTING

    assert rig.report()[MOUNTING] == "not known yet"
    drive = [(t, _turned(m, -3.0) if t == "/tf_static" else m) for t, m in without(bag)]
    again = [(t, shifted(m, 3.0)) for t, m in drive if t != "/tf_static"]
    verdicts = rig.play([*drive, *again])
    assert sum(v.localized for v in verdicts) > 25, [v.message for v in verdicts]
    rig.until(lambda: "deg in yaw" in rig.diagnostics[MOUNTING], "a finding")
    (turn_deg,) = re.findall(r"([-+.0-9]+) deg in yaw", rig.diagnostics[MOUNTING])
    assert float(turn_deg) == pytest.approx(3.0, abs=0.5)

    def told(findings: dict[str, Any]) -> None:
        assert "deg in yaw" in findings[MOUNTING].detail
        assert findings[MOUNTING].remedy == "pixloc calibrate"

    examine(monkeypatch, node[1], lambda: rig.until(lambda: True, ""), told)


def _turned(message: Any, yaw_deg: float) -> Any:
    """Static transforms with another heading in their parent."""
    turned = changed(message)
    for each in turned.transforms:
        q = each.transform.rotation
        before = Rotation.from_quat([q.x, q.y, q.z, q.w])
        after = Rotation.from_euler("z", yaw_deg, degrees=True) * before
        q.x, q.y, q.z, q.w = map(float, after.as_quat())
    return turned
