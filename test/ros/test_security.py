"""The SROS 2 policy is of the schema, and allows what the node does and nothing more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from helpers.live import PATIENCE_S, running_node
from helpers.programs import failure_in
from helpers.wall import write_dataset
from pixloc_ros.maps.build.builder import build_map
from pixloc_ros.maps.build.sources import ColmapSource

POLICY = Path(__file__).resolve().parents[2] / "config" / "security" / "policy.xml"
NODE = "pixloc_localizer"
RULES = {"topics": ("publish", "subscribe"), "services": ("reply", "request")}
UTM_M = np.array([458_000.0, 5_428_000.0, 110.0])

# Of the schema of sros2 0.2.0: what an element may hold, and its attributes.
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    # name: children, required attributes, optional attributes
    "policy": ({"enclaves"}, {"version"}, set()),
    "enclaves": ({"enclave"}, set(), set()),
    "enclave": ({"profiles"}, {"path"}, set()),
    "profiles": ({"profile"}, set(), {"type"}),
    "profile": ({"topics", "services", "actions"}, {"ns", "node"}, set()),
    "topics": ({"topic"}, set(), {"publish", "subscribe"}),
    "services": ({"service"}, set(), {"reply", "request"}),
    "actions": ({"action"}, set(), {"call", "execute"}),
    "topic": (set(), set(), set()),
    "service": (set(), set(), set()),
    "action": (set(), set(), set()),
}


@pytest.fixture(scope="module")
def policy() -> ElementTree.Element:
    return ElementTree.parse(POLICY).getroot()


def test_the_policy_is_of_the_schema(policy):
    assert policy.tag == "policy" and policy.get("version") == "0.2.0"
    for element in policy.iter():
        children, required, optional = SCHEMA[element.tag]
        names = set(element.keys())
        assert required <= names <= required | optional, element.tag
        assert {child.tag for child in element} <= children, element.tag
        assert len(element) or not children, f"{element.tag} is empty"
        if not children:
            assert (element.text or "").strip() == element.text, element.text
        if element.tag in RULES:
            assert set(element.attrib.values()) == {"ALLOW"}


def test_nothing_is_allowed_twice_or_by_pattern(policy):
    allowed = list(rules(policy))
    assert len(allowed) == len(set(allowed))
    assert all(name.replace("/", "").replace("_", "").isalnum() for _, name in allowed)


def rules(policy: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """What is allowed: the verb and the full name."""
    (profile,) = policy.iter("profile")
    space, node = profile.get("ns"), profile.get("node")
    assert (space, node) == ("/", NODE)
    for group in profile:
        for verb in group.keys():  # noqa: SIM118 (of ElementTree)
            for item in group:
                yield verb, resolved(item.text or "")


def resolved(name: str) -> str:
    """As rclpy does for a node in the root namespace."""
    return name if name.startswith("/") else f"/{name}".replace("/~", f"/{NODE}")


@pytest.fixture(scope="module")
def map_far_away(tmp_path_factory) -> Path:
    """A map in UTM coordinates: with it the node publishes on /tf_static, too."""
    folder = tmp_path_factory.mktemp("far")
    write_dataset(folder, UTM_M)
    source = ColmapSource(model_dir=folder / "colmap", images=folder / "images")
    build_map(source, folder / "map").close()
    return folder / "map"


def graph(node: Node) -> set[tuple[str, str]]:
    """What the localizer does, as others on the network see it."""
    seen: set[tuple[str, str]] = set()
    for verb, ask in {
        "publish": node.get_publisher_names_and_types_by_node,
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
        "request": node.get_client_names_and_types_by_node,
    }.items():
        seen |= {(verb, name) for name, _ in ask(NODE, "/")}
    return seen


def settled_graph(domain: int, expected: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The graph of an active node, once it has all that is expected and nothing more comes."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    watcher = rclpy.create_node("watcher", context=context)
    try:
        end_s, found, since_s = time.monotonic() + PATIENCE_S, set[tuple[str, str]](), 0.0
        while time.monotonic() < end_s and not failure_in(domain):
            if (NODE, "/") in watcher.get_node_names_and_namespaces():
                now = graph(watcher)
                if now != found:
                    found, since_s = now, time.monotonic()
                if expected <= found and time.monotonic() - since_s > 1.0:
                    return found
            time.sleep(0.1)
        why = failure_in(domain) or f"the policy allows what it never does: {expected - found}"
        raise AssertionError(why)
    finally:
        watcher.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.ros
@pytest.mark.slow
def test_the_policy_allows_what_the_node_does_and_nothing_more(
    policy, map_far_away, domain, tmp_path
):
    allowed = set(rules(policy))
    if find_spec("nav2_msgs") is None:
        allowed.remove(("reply", "/set_initial_pose"))
    raw = {("subscribe", "/image")}
    video = {("subscribe", f"/image/{plugin}") for plugin in ("ffmpeg", "foxglove")}  # if published
    settings = {"map": map_far_away, "threads": 1}
    with running_node(tmp_path / "raw.log", domain, **settings):
        done = settled_graph(domain, {*raw, ("subscribe", "/tf")})
    others = {"node.compressed": "true", "use_sim_time": "true"}
    others |= {"node.bond": "true", "node.amcl_interface": "true"}
    with running_node(tmp_path / "compressed.log", domain, **settings, **others):
        done |= settled_graph(domain, allowed - raw - video)
    assert not done - allowed, "the node does what its policy forbids"
