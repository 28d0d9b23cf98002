"""The services of the node. Each answers only when the outcome is known, and reports it truly.

Callbacks are coroutines: while one awaits its result, the executor serves all others.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Protocol

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from pixloc_ros.config import Config
from pixloc_ros.config.holder import ConfigHolder
from pixloc_ros.errors import PixlocError, one_line
from pixloc_ros.localizer import Localizer
from pixloc_ros.ros import conversions, map_root
from pixloc_ros.ros.relocalization import Outcome, Relocalization
from pixloc_ros.ros.runtime import NodeRuntime
from pixloc_ros.sensors import decoding
from pixloc_ros.sensors.events import PoseEvent
from pixloc_ros.srv import LoadMap, Relocalize
from pixloc_ros.warm_up import warm_up

_TIMEOUT_S = 10.0  # of a relocalization whose request sets none


class ServedNode(Protocol):
    """What the services need of their node."""

    config: ConfigHolder
    localizer: Localizer | None
    runtime: NodeRuntime | None

    def adopt(self, localizer: Localizer, pose: PoseEvent | None) -> None: ...
    def get_logger(self) -> Any: ...
    def create_service(self, *arguments: Any, **options: Any) -> Any: ...


class Services:
    """`~/relocalize`, `~/load_map`, `~/reset`, `~/set_enabled`: served in every lifecycle state."""

    def __init__(self, node: ServedNode) -> None:
        self._node = node
        self._loading = False
        self.waiting = 0  # callers of ~/relocalize
        # Reentrant: a coroutine that waits must not hold up the others.
        group = ReentrantCallbackGroup()
        for kind, name, callback in (
            (Relocalize, "~/relocalize", self._relocalize),
            (LoadMap, "~/load_map", self._load_map),
            (Trigger, "~/reset", self._reset),
            (SetBool, "~/set_enabled", self._set_enabled),
        ):
            node.create_service(kind, name, callback, callback_group=group)

    async def _relocalize(
        self, request: Relocalize.Request, response: Relocalize.Response
    ) -> Relocalize.Response:
        self.waiting += 1
        try:
            begun = self._begin(request)
            outcome = await begun.future if isinstance(begun, Relocalization) else begun
            return self._answer(outcome, response)
        finally:
            self.waiting -= 1

    def _begin(self, request: Relocalize.Request) -> Relocalization | Outcome:
        """Start an attempt; return it, or the outcome that says why there is none."""
        runtime, timeout_s = self._node.runtime, float(request.timeout_s) or _TIMEOUT_S
        if runtime is None:
            return Outcome("inactive", "the node is not active: configure and activate it")
        if not runtime.enabled:
            return Outcome("disabled", "the node is disabled: call ~/set_enabled")
        if runtime.relocalizing:
            return Outcome("busy", "another relocalization is under way")
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            return Outcome("bad_request", f"timeout_s is {timeout_s}, must be positive")
        try:
            return runtime.relocalize(request.hint if request.use_hint else None, timeout_s)
        except decoding.BadMessage as error:
            return Outcome("bad_request", f"hint: {error}")

    def _answer(self, outcome: Outcome, response: Relocalize.Response) -> Relocalize.Response:
        response.success, response.code = outcome.found, str(outcome.code)
        response.message, response.frames = outcome.message, outcome.frames
        estimate = outcome.estimate
        alignment = estimate.alignment if estimate else None
        response.score = alignment.inlier_share if alignment else math.nan
        if estimate and estimate.T_map_base is not None and estimate.covariance is not None:
            response.pose = conversions.pose_message(
                estimate.T_map_base,
                estimate.covariance,
                estimate.stamp_ns,
                self._node.config.current.node.map_frame,
            )
        return response

    async def _load_map(
        self, request: LoadMap.Request, response: LoadMap.Response
    ) -> LoadMap.Response:
        if self._loading:
            response.message = "another map is being loaded"
        else:
            self._loading = True
            try:
                response.message = await self._swap_map(request)
                response.success = True
            except Exception as error:  # of any kind: the node keeps the map that it has
                response.message = one_line(error) or type(error).__name__
                self._node.get_logger().error(f"map not loaded: {response.message}")
            finally:
                self._loading = False
        localizer = self._node.localizer
        response.map_sha256 = localizer.map.sha256 if localizer else ""
        return response

    async def _swap_map(self, request: LoadMap.Request) -> str:
        """Load a map while the current one is in use, then exchange them; describe it in a line."""
        if self._node.localizer is None:
            raise PixlocError("the node is not configured: configure it first")
        config = self._node.config.current
        location = str(map_root.find(config.node.map_root, request.name))
        pose = self._pose_there(request)
        localizer = await in_thread(lambda: _open_map(config.model_copy(update={"map": location})))
        if self._node.config.current is not config or self._node.localizer is None:
            raise PixlocError("the node was configured again meanwhile; the map was not exchanged")
        self._node.adopt(localizer, pose)
        return f"map {location}: {len(localizer.map.keyframe_names)} keyframes"

    def _pose_there(self, request: LoadMap.Request) -> PoseEvent | None:
        """Return the vehicle's pose in the new map, None if not given. Raises PixlocError."""
        if not request.use_pose:
            return None
        if self._node.runtime is None:
            raise PixlocError("only an active node can use a pose: activate it first")
        try:
            return self._node.runtime.stamped_now(request.pose)
        except decoding.BadMessage as error:
            raise PixlocError(f"pose: {error}") from None

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        runtime = self._node.runtime
        if runtime is None:
            response.message = "the node is not active: there is nothing to forget"
            return response
        runtime.reset()
        response.success, response.message = True, "forgot poses, odometry and GNSS"
        return response

    def _set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> Any:
        runtime = self._node.runtime
        if runtime is None:
            response.message = "the node is not active: configure and activate it"
            return response
        runtime.enable(request.data)
        response.success = True
        response.message = "images are processed" if request.data else "images are ignored"
        return response


def _open_map(config: Config) -> Localizer:
    """Open a localizer on a map after checking all of its files. Raises MapError."""
    localizer = Localizer(config)
    localizer.map.check_files()
    warm_up(localizer)
    return localizer


def in_thread(work: Callable[[], Any]) -> Future:
    """Run long work in its own thread; await the future for its result or exception."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, name="pixloc_load", daemon=True).start()
    return future
