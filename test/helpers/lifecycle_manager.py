"""What nav2's lifecycle manager does to a node: brings it up, and holds a bond with it.

Written from the descriptions of nav2_lifecycle_manager and bond_core, to meet our node with.
"""

from __future__ import annotations

import uuid
from typing import Any

from bond.msg import Status
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

HEARTBEAT_S = 0.1


class BondEnd:
    """The manager's end of one bond: whether the other end was heard, and has ended it in words."""

    def __init__(self, node: Any, name: str, timeout_s: float) -> None:
        self._name, self._instance, self._timeout_s = name, str(uuid.uuid4()), timeout_s
        self.formed = self.said_no = False
        self._active = True
        self._publisher = node.create_publisher(Status, "bond", 5)
        node.create_subscription(Status, "bond", self._on_status, 100)
        self._timer = node.create_timer(HEARTBEAT_S, self._beat)

    def end(self) -> None:
        """Break the bond from this side, saying so until it is answered."""
        self._active = False

    def _beat(self) -> None:
        self._say(True)  # at the end, too: one that was never heard alive is not obeyed
        if not self._active:
            self._say(False)

    def _say(self, active: bool) -> None:
        status = Status(id=self._name, instance_id=self._instance, active=active)
        status.heartbeat_timeout, status.heartbeat_period = self._timeout_s, HEARTBEAT_S
        self._publisher.publish(status)

    def _on_status(self, message: Any) -> None:
        if message.id == self._name and message.instance_id != self._instance:
            self.formed = True
            if not message.active:
                self._on_end()

    def _on_end(self) -> None:
        """Fall silent; where the other end was the first to break it, say no once more."""
        self.said_no = True
        if self._active:
            self._active = False
            self._say(False)
        self._timer.cancel()


def bring_up(rig: Any, name: str, bond_timeout_s: float = 4.0, id: str = "") -> BondEnd:
    """Configure and activate a node of this full name, then bond with it, as nav2 does."""
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    ):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert rig.call(ChangeState, f"/{name.lstrip('/')}/change_state", request).success
        answer = rig.call(GetState, f"/{name.lstrip('/')}/get_state", GetState.Request())
        assert answer.current_state.id == state
    return BondEnd(rig.node, id or name, bond_timeout_s)
