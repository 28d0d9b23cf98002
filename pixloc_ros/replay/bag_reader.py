"""The events of a rosbag2 (mcap or sqlite3) in order of recording, without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pixloc_ros.errors import BagError
from pixloc_ros.replay.messages import typestore
from pixloc_ros.replay.storage import RawMessage, open_sources
from pixloc_ros.sensors import conversion
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import Event, ImageEvent, RefusedMessage
from pixloc_ros.sensors.topics import DISCOVERED, REQUIRED, TYPES, Topics


class BagReader:
    """Iterates the events of a bag; messages of other types are passed over, and those that
    cannot be used become a RefusedMessage.

    A part of `topics` that the bag lacks under its name is taken from the only topic of its type.
    cameras: names of the cameras of a rig, whose topics begin with them.
    Raises BagError when the bag cannot be read, or when images or CameraInfo are missing: then
    with the topics it has. `truncated` says, after iterating, why reading ended early.
    """

    def __init__(
        self, path: str | Path, topics: Topics | None = None, cameras: Sequence[str] = ("",)
    ):
        self.path = Path(path)
        self._sources = open_sources(self.path)
        self.types = {t: kind for source in self._sources for t, kind in source.types.items()}
        self.counts = sum((source.counts for source in self._sources), Counter[str]())
        try:
            self.parts = self._resolve(topics or Topics(), cameras)
        except BagError:
            self.close()
            raise
        self._log_ns: dict[tuple[str, int], int] = {}  # recording time by camera and stamp

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def close(self) -> None:
        """Close the files."""
        for source in self._sources:
            source.close()

    @property
    def truncated(self) -> str | None:
        """One line about what could not be read, or None."""
        damages = [source.damage for source in self._sources if source.damage]
        return "; ".join(damages) or None

    @property
    def image_count(self) -> int:
        """How many images the bag says to have."""
        return self.counts[self.topics_of("image")[0]]

    def topics_of(self, part: str) -> list[str]:
        """Topics of a part: as many as there are cameras for images and calibrations."""
        return [topic for key, topic in self.parts.items() if _part(key) == part]

    def events(self, parts: Collection[str] = TYPES, every: int = 1) -> Iterator[Event]:
        """Yield the events of some parts; of images every Nth, the others are left out."""
        key_of = {topic: key for key, topic in self.parts.items() if _part(key) in parts}
        images = Counter[str]()
        for raw in self._raw(key_of):
            key = key_of[raw.topic]
            if _part(key) == "image":
                images[key] += 1
                if (images[key] - 1) % every:
                    continue
            yield self._event(key, raw)

    def image(self, stamp_ns: int, camera_name: str = "") -> ImageEvent | None:
        """A frame that was read before, once more."""
        log_ns = self._log_ns.get((camera_name, stamp_ns))
        if log_ns is None:
            return None
        key = _key("image", camera_name)
        for raw in self._raw({self.parts[key]}, log_ns, log_ns + 1):
            event = self._event(key, raw)
            if isinstance(event, ImageEvent) and event.stamp_ns == stamp_ns:
                return event
        return None

    def _raw(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        for source in self._sources:
            yield from source.messages(topics, start_ns, stop_ns)

    def _event(self, key: str, raw: RawMessage) -> Event:
        """The event of one message, or its refusal."""
        part, _, camera_name = key.partition("/")
        deserialize = partial(self._deserialized, raw)
        if part == "tf":
            return conversion.transforms_event(deserialize)
        try:
            message = conversion.deserialized(deserialize)
        except BadMessage as error:
            return RefusedMessage(raw.log_ns, part, error.reason, str(error), camera_name)
        event = conversion.event_of(part, message, raw.log_ns, camera_name)
        if isinstance(event, ImageEvent):
            self._log_ns[camera_name, event.stamp_ns] = raw.log_ns
        return event

    def _deserialized(self, raw: RawMessage) -> Any:
        return typestore().deserialize_cdr(raw.data, self.types[raw.topic])

    def _resolve(self, topics: Topics, cameras: Sequence[str]) -> dict[str, str]:
        found = {part: self._find(part, topics) for part in TYPES}
        if any(cameras):
            rest = {part: topic for part, topic in found.items() if part not in REQUIRED}
            return self._resolve_rig(cameras) | {p: t for p, t in rest.items() if t is not None}
        missing = [part for part in REQUIRED if found[part] is None]
        missing += [part for part in topics.chosen if found[part] is None and part not in missing]
        if missing:
            wanted = " and ".join(f"'{getattr(topics, part)}' ({part})" for part in missing)
            raise BagError(
                f"bag {self.path} has no usable topic {wanted}; name one with --topic "
                f"{missing[0]}=/name. It has {self._listing()}"
            )
        return {part: topic for part, topic in found.items() if topic is not None}

    def _resolve_rig(self, cameras: Sequence[str]) -> dict[str, str]:
        found = {}
        for name in cameras:
            topics = Topics(image=f"/{name}/image", camera_info=f"/{name}/camera_info")
            topics = replace(topics, chosen=frozenset(REQUIRED))
            for part in REQUIRED:
                topic = self._find(part, topics)
                if topic is None:
                    raise BagError(
                        f"bag {self.path} has no usable topic '{getattr(topics, part)}' ({part} of "
                        f"camera '{name}', see node.cameras). It has {self._listing()}"
                    )
                found[_key(part, name)] = topic
        return found

    def _find(self, part: str, topics: Topics) -> str | None:
        name: str = getattr(topics, part)
        names = [name, topics.compressed_image] if part == "image" else [name]
        for topic in names:
            if self.types.get(topic) in TYPES[part]:
                return topic
        if part in topics.chosen or part not in DISCOVERED:
            return None
        candidates = [topic for topic, kind in self.types.items() if kind in TYPES[part]]
        return candidates[0] if len(candidates) == 1 else None

    def _listing(self) -> str:
        return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(self.types.items()))


def _key(part: str, camera_name: str) -> str:
    return f"{part}/{camera_name}" if camera_name else part


def _part(key: str) -> str:
    return key.partition("/")[0]
