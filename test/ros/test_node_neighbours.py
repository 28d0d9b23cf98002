"""The live node beside nav2, and what other programs take from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.domains import own_domain
from helpers.messages import up_to_frame, without

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NAME = "pixloc_localizer"


@pytest.fixture(scope="module")
def node_of_nav2(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The domain of a node as nav2 starts it: not configured, with a bond and AMCL's interface."""
    pytest.importorskip("bond", reason="no messages of bonds here")
    from helpers.live import running_node

    parameters: dict[str, Any] = {"map": street / "map", "threads": 1}
    parameters |= {"node.autostart": "false", "node.bond": "true", "node.amcl_interface": "true"}
    parameters |= {"node.odometry_at_full_rate": "true", "node.tf_rate_hz": 0.5}
    parameters |= {"node.diagnostics_rate_hz": 10.0, "retrieval.enabled": "false"}
    log = tmp_path_factory.mktemp("neighbour") / "log.txt"
    with own_domain() as domain, running_node(log, domain, **parameters):
        yield domain


@pytest.fixture
def neighbour(node_of_nav2: int) -> Iterator[Any]:
    """A rig beside that node, which is not configured, whatever the test before left."""
    from helpers.live import Rig

    with Rig(node_of_nav2) as rig:
        if rig.lifecycle_state() == "active":
            assert rig.change_state("deactivate")
        if rig.lifecycle_state() == "inactive":
            assert rig.change_state("cleanup")
        rig.until(lambda: rig.state.startswith("WAITING_MAP"), "a node that is not configured")
        yield rig


def test_a_lifecycle_manager_brings_it_up_and_bonds_with_it(neighbour: Any) -> None:
    from helpers.lifecycle_manager import bring_up

    for _ in range(2):
        bond = bring_up(neighbour, NAME)
        neighbour.until(lambda bond=bond: bond.formed, "a heartbeat")
        assert not bond.said_no
        assert neighbour.change_state("deactivate")
        assert neighbour.change_state("cleanup")
        neighbour.until(lambda bond=bond: bond.said_no, "the end of the bond")


def test_the_manager_ends_the_bond_and_is_answered(neighbour: Any) -> None:
    from helpers.lifecycle_manager import bring_up

    bond = bring_up(neighbour, NAME)
    neighbour.until(lambda: bond.formed, "a heartbeat")
    bond.end()
    neighbour.until(lambda: bond.said_no, "the answer")
    assert neighbour.lifecycle_state() == "active"  # what follows is the manager's to say


def test_what_others_take_from_it(neighbour: Any, bag: Any) -> None:
    from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
    from nav_msgs.msg import Odometry
    from std_srvs.srv import Empty

    from helpers.lifecycle_manager import bring_up
    from helpers.live import LATCHED

    rig = neighbour
    bring_up(rig, NAME)
    plain = rig.listen(PoseStamped, "pose_stamped")
    odometry = rig.listen(Odometry, "odometry")
    rig.until(rig.connected, "the node's subscriptions")
    verdicts = rig.play(up_to_frame(without(bag), 3))
    assert all(verdict.localized for verdict in verdicts)
    rig.until(lambda: len(plain) == 3 == len(rig.poses), "three poses")
    assert [(p.header, p.pose) for p in plain] == [(p.header, p.pose.pose) for p in rig.poses]

    amcl: list[Any] = []
    rig.node.create_subscription(PoseWithCovarianceStamped, "/amcl_pose", amcl.append, LATCHED)
    rig.until(lambda: amcl, "the last pose, latched")
    assert amcl[-1] == rig.poses[-1]
    rig.call(Empty, "/request_nomotion_update", Empty.Request())

    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in odometry]
    later = [m for m in bag.on("/odom") if (m.header.stamp.sec, m.header.stamp.nanosec) > stamps[0]]
    sent = [m for m in later if (m.header.stamp.sec, m.header.stamp.nanosec) <= stamps[-1]]
    assert len(odometry) >= len(sent) > 10, "with every odometry message, not every two seconds"
    assert len(set(stamps)) == len(stamps)
    moving = odometry[-1].twist.twist.linear.x
    true = bag.on("/odom")[len(bag.on("/odom")) // 4].twist.twist.linear.x
    assert moving > 1.0, true
    assert 0.0 < odometry[-1].twist.covariance[0] < 10.0

    rig.call(Empty, "/reinitialize_global_localization", Empty.Request())
    verdict = rig.look(bag.on("/image")[3])
    assert verdict.prior_source != "odometry", "it has forgotten the pose"
