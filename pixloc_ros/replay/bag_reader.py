"""The events of a rosbag2 (mcap or sqlite3) in order of recording, without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from pixloc_ros.errors import BagError
from pixloc_ros.replay import to_events
from pixloc_ros.replay.decode import BadMessage
from pixloc_ros.replay.events import Event, ImageEvent, RejectedEvent
from pixloc_ros.replay.messages import typestore
from pixloc_ros.replay.storage import RawMessage, open_sources
from pixloc_ros.replay.topics import DISCOVERED, REQUIRED, TYPES, Topics


class BagReader:
    """Iterates the events of a bag; messages of other types are passed over, and those that
    cannot be used become a RejectedEvent.

    A part of `topics` that the bag lacks under its name is taken from the only topic of its type.
    Raises BagError when the bag cannot be read, or when images or CameraInfo are missing: then
    with the topics it has. `truncated` says, after iterating, why reading ended early.
    """

    def __init__(self, path: str | Path, topics: Topics | None = None):
        self.path = Path(path)
        self._sources = open_sources(self.path)
        self.types = {t: kind for source in self._sources for t, kind in source.types.items()}
        self.counts = sum((source.counts for source in self._sources), Counter[str]())
        try:
            self.parts = self._resolve(topics or Topics())
        except BagError:
            self.close()
            raise
        self._log_ns: dict[int, int] = {}  # recording time of each frame, to find it again

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
        return self.counts[self.parts["image"]]

    def events(self, parts: Collection[str] = TYPES, every: int = 1) -> Iterator[Event]:
        """Events of some parts; of images, every Nth is decoded and the others are left out."""
        part_of = {self.parts[part]: part for part in parts if part in self.parts}
        images = 0
        for raw in self._raw(part_of):
            part = part_of[raw.topic]
            if part == "image":
                images += 1
                if (images - 1) % every:
                    continue
            yield from self._decoded(part, raw)

    def image(self, stamp_ns: int) -> ImageEvent | None:
        """A frame that was read before, once more."""
        log_ns = self._log_ns.get(stamp_ns)
        if log_ns is None:
            return None
        for raw in self._raw({self.parts["image"]}, log_ns, log_ns + 1):
            for event in self._decoded("image", raw):
                if isinstance(event, ImageEvent) and event.stamp_ns == stamp_ns:
                    return event
        return None

    def _raw(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        for source in self._sources:
            yield from source.messages(topics, start_ns, stop_ns)

    def _decoded(self, part: str, raw: RawMessage) -> Iterator[Event]:
        msgtype = self.types[raw.topic]
        try:
            message = typestore().deserialize_cdr(raw.data, msgtype)
            for event in to_events.events(part, msgtype, message):
                if isinstance(event, ImageEvent):
                    self._log_ns[event.stamp_ns] = raw.log_ns
                yield event
        except BadMessage as error:
            reason = error.reason if error.reason.startswith(part) else f"{part}_{error.reason}"
            yield RejectedEvent(_stamp_or(message, raw.log_ns), part, reason, str(error))
        except Exception as error:  # half a message makes the deserializer say anything
            yield RejectedEvent(raw.log_ns, part, f"{part}_malformed", f"{part}: {error!r}")

    def _resolve(self, topics: Topics) -> dict[str, str]:
        found = {part: self._find(part, topics) for part in TYPES}
        missing = [part for part in REQUIRED if found[part] is None]
        missing += [part for part in topics.chosen if found[part] is None and part not in missing]
        if missing:
            wanted = " and ".join(f"'{getattr(topics, part)}' ({part})" for part in missing)
            raise BagError(
                f"bag {self.path} has no usable topic {wanted}; name one with --topic "
                f"{missing[0]}=/name. It has {self._listing()}"
            )
        return {part: topic for part, topic in found.items() if topic is not None}

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


def _stamp_or(message: object, log_ns: int) -> int:
    try:
        return to_events.stamp_ns(message)
    except (BadMessage, AttributeError):
        return log_ns
