"""Read the events of a rosbag2 (mcap or sqlite3) in the order of recording, without ROS."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pixloc_ros.config import NodeConfig
from pixloc_ros.errors import BagError, ConfigError, PixlocError
from pixloc_ros.replay.calibration_file import read_calibration
from pixloc_ros.replay.calibration_source import CalibrationSource
from pixloc_ros.replay.messages import typestore
from pixloc_ros.replay.storage import BagSource, RawMessage, open_sources
from pixloc_ros.sensors import conversion, decoding, video
from pixloc_ros.sensors.decoding import BadMessage
from pixloc_ros.sensors.events import CameraInfoEvent, Event, ImageEvent, RefusedMessage
from pixloc_ros.sensors.image_messages import ImageMessages
from pixloc_ros.sensors.topics import (
    CAMERA_INFO,
    DISCOVERED,
    REQUIRED,
    TYPES,
    VIDEO,
    Topics,
    camera_info_beside,
    is_calibration_file,
)


class BagReader:
    """Iterates over the events of a bag.

    Messages of other types are skipped; unusable ones become a RefusedMessage. If the bag lacks one
    of `topics`, the only topic of the same type is read instead. CameraInfo is preferably read
    beside the images, where drivers publish it; a file that `topics` names instead counts as
    recorded with the first image.

    cameras: names of a rig's cameras; their topics are `/NAME/image` unless `topics` has others.

    Raises BagError if the bag cannot be read, or lacks images or CameraInfo (then listing its
    topics), ConfigError for a topic of a camera that is not in `cameras` or of two cameras, and
    DataError for an unusable calibration file or a video that no installed package decodes. After
    iterating, `truncated` says why reading ended early.
    """

    def __init__(
        self, path: str | Path, topics: Topics | None = None, cameras: Sequence[str] = ("",)
    ):
        self.path = Path(path)
        self._sources = open_sources(self.path)
        self.types = {t: kind for source in self._sources for t, kind in source.types.items()}
        self.counts = sum((source.counts for source in self._sources), Counter[str]())
        self._choices: list[str] = []  # inputs for which a topic has to be named
        topics = topics or Topics()
        self.types |= dict.fromkeys(topics.calibration_files, CAMERA_INFO)
        try:
            self.parts = self._resolve(topics, cameras)
            self._sources = [*self._calibration_sources(), *self._sources]
            if any(self.types[topic] in VIDEO for topic in self.topics_of("image")):
                video.require_decoder()
        except PixlocError:
            self.close()
            raise
        self._log_ns: dict[tuple[str, int], int] = {}  # recording time by camera and image stamp
        # Recording times of a video's two latest key frames.
        self._key_ns: dict[str, tuple[int, int]] = {}
        self._reading: dict[str, Iterator[Event]] = {}  # state of `image`, per video

    @classmethod
    def configured(cls, path: str | Path, config: NodeConfig, topics: Topics | None) -> BagReader:
        """Open a bag with the cameras, and the calibration files, of a configuration."""
        topics = (topics or Topics()).with_calibration_files(config)
        return cls(path, topics, config.camera_names)

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
        """One line about what could not be read; None if everything was read."""
        damages = [source.damage for source in self._sources if source.damage]
        return "; ".join(damages) or None

    @property
    def notes(self) -> list[str]:
        """Lines about inputs that are not read although the bag has them, and about damage."""
        damage = [f"{self.truncated}; the readable part was used"] if self.truncated else []
        return [*self._choices, *damage]

    @property
    def image_count(self) -> int:
        """The number of images that the bag claims to have."""
        return self.counts[self.topics_of("image")[0]]

    def topics_of(self, part: str) -> list[str]:
        """Return the topics of an input: for images and calibrations one per camera."""
        return [topic for key, topic in self.parts.items() if _part(key) == part]

    def events(self, parts: Collection[str] = TYPES, every: int = 1) -> Iterator[Event]:
        """Yield the events of some inputs; of the images only every Nth."""
        key_of = {topic: key for key, topic in self.parts.items() if _part(key) in parts}
        images = Counter[str]()
        for key, event in self._events(self._raw(key_of), key_of):
            if _part(key) == "image":
                images[key] += 1
                if (images[key] - 1) % every:
                    continue
            yield event

    def calibrations(self) -> dict[str, CameraInfoEvent]:
        """Return the first calibration of each camera. Raises BagError if a camera has none."""
        found, problem, topics = dict[str, CameraInfoEvent](), "", self.topics_of("camera_info")
        for event in self.events(parts=("camera_info",)):
            if isinstance(event, CameraInfoEvent):
                found.setdefault(event.camera_name, event)
            if isinstance(event, RefusedMessage):
                problem = event.message
            if len(found) == len(topics):
                return found
        problem = problem or self.truncated or "the topic holds no message"
        names = " or ".join(f"'{topic}'" for topic in topics)
        raise BagError(f"bag {self.path} has no usable calibration on {names}: {problem}")

    def image(self, stamp_ns: int, camera_name: str = "") -> ImageEvent | None:
        """Read again an image that was read before; None if it cannot be read."""
        log_ns = self._log_ns.get((camera_name, stamp_ns))
        if log_ns is None:
            return None
        key = _key("image", camera_name)
        if self.types[self.parts[key]] in VIDEO:
            return self._image_of_video(key, stamp_ns, log_ns)
        return _stamped(self._images(key, log_ns, log_ns + 1), stamp_ns)

    def _image_of_video(self, key: str, stamp_ns: int, log_ns: int) -> ImageEvent | None:
        """Read on from the image that was last asked for, or else from an earlier key frame."""
        reading = self._reading.get(key)
        event = _stamped(reading, stamp_ns) if reading is not None else None
        if event is None:
            self._reading[key] = self._images(key, log_ns)
            event = _stamped(self._reading[key], stamp_ns)
        return event

    def _images(self, key: str, start_ns: int, stop_ns: int | None = None) -> Iterator[Event]:
        topic = self.parts[key]
        raw = self._raw({topic}, start_ns, stop_ns)
        return (event for _, event in self._events(raw, {topic: key}))

    def _raw(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        for source in self._sources:
            yield from source.messages(topics, start_ns, stop_ns)

    def _events(
        self, raws: Iterator[RawMessage], key_of: Mapping[str, str]
    ) -> Iterator[tuple[str, Event]]:
        """Convert messages to events, each with the key of its topic."""
        images = {key: ImageMessages(_camera(key)) for key in key_of.values()}
        for raw in raws:
            key = key_of[raw.topic]
            for event in self._converted(key, raw, images[key]):
                yield key, event
        for key, left in images.items():
            for event in left.finish():
                yield key, event

    def _converted(self, key: str, raw: RawMessage, images: ImageMessages) -> Sequence[Event]:
        """Convert one message to its events."""
        part, camera_name = _part(key), _camera(key)
        deserialize = partial(self._deserialized, raw)
        if part == "tf":
            return [conversion.transforms_event(deserialize)]
        try:
            message = conversion.deserialized(deserialize)
        except BadMessage as error:
            return [RefusedMessage(raw.log_ns, part, error.reason, str(error), camera_name)]
        if part != "image":
            return [conversion.event_of(part, message, raw.log_ns, camera_name)]
        self._remember(key, raw, message)
        return images.take(message, raw.log_ns)

    def _remember(self, key: str, raw: RawMessage, message: Any) -> None:
        """Note where to start reading this image again; in a video, at the key frame before last.

        Images between two key frames may depend on both.
        """
        log_ns = raw.log_ns
        if self.types[raw.topic] in VIDEO:
            before = self._key_ns.get(key, (log_ns, log_ns))
            if video.is_key(message) and log_ns > before[1]:
                before = before[1], log_ns
            self._key_ns[key] = before
            log_ns = before[0]
        stamp_ns = decoding.stamp_ns(video.header(message))
        self._log_ns.setdefault((_camera(key), stamp_ns), log_ns)

    def _deserialized(self, raw: RawMessage) -> Any:
        return typestore().deserialize_cdr(raw.data, self.types[raw.topic])

    def _calibration_sources(self) -> list[BagSource]:
        """Return sources of the calibrations that are in files."""
        return [
            self._calibration_source(topic, self.parts[_key("image", _camera(key))])
            for key, topic in self.parts.items()
            if _part(key) == "camera_info" and is_calibration_file(topic)
        ]

    def _calibration_source(self, file: str, image_topic: str) -> BagSource:
        camera = read_calibration(Path(file))
        for raw in self._raw({image_topic}):
            with contextlib.suppress(BadMessage):  # told when the images are read
                message = conversion.deserialized(partial(self._deserialized, raw))
                return CalibrationSource(file, camera, video.header(message), raw.log_ns)
        raise BagError(f"bag {self.path} has no readable message on '{image_topic}'")

    def _resolve(self, topics: Topics, cameras: Sequence[str]) -> dict[str, str]:
        topics.check_rig(cameras)
        found: dict[str, str | None] = {}
        for part in TYPES:
            found[part] = self._find(part, topics, found.get("image"))
            if part not in REQUIRED and part not in topics.chosen and found[part] is None:
                self._tell_choice(part)
        if any(cameras):
            rest = {part: topic for part, topic in found.items() if part not in REQUIRED}
            return self._resolve_rig(topics, cameras) | {p: t for p, t in rest.items() if t}
        missing = [part for part in REQUIRED if found[part] is None]
        missing += [part for part in topics.chosen if found[part] is None and part not in missing]
        if missing:
            wanted = " and ".join(f"'{getattr(topics, part)}' ({part})" for part in missing)
            raise self._lacks(wanted, {part: part for part in missing})
        return {part: topic for part, topic in found.items() if topic is not None}

    def _resolve_rig(self, topics: Topics, cameras: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in cameras:
            own = topics.of_camera(name)
            for part in REQUIRED:
                image = found.get(_key("image", name))
                topic = self._find(part, own, image, only_one=False)
                if topic is None:
                    wanted = f"'{getattr(own, part)}' ({part} of camera '{name}')"
                    raise self._lacks(wanted, {f"{name}/{part}": part})
                if topic in found.values():
                    raise ConfigError(f"two cameras of node.cameras have the same topic {topic}")
                found[_key(part, name)] = topic
        return found

    def _find(
        self, part: str, topics: Topics, image: str | None, only_one: bool = True
    ) -> str | None:
        """Return the topic of an input.

        image: topic of the camera's images, beside which its calibration is.
        only_one: whether the only topic of the type may be taken.
        """
        names = topics.images if part == "image" else [getattr(topics, part)]
        if part == "camera_info" and image is not None and part not in topics.chosen:
            names = [camera_info_beside(image), *names]
        for topic in names:
            if self.types.get(topic) in TYPES[part]:
                return topic
        if part in topics.chosen or part not in DISCOVERED or not only_one:
            return None
        candidates = self._candidates(part)
        return candidates[0] if len(candidates) == 1 else None

    def _candidates(self, part: str) -> list[str]:
        return [topic for topic, kind in self.types.items() if kind in TYPES[part]]

    def _tell_choice(self, part: str) -> None:
        """Note that none of several topics is read as an input."""
        candidates = self._candidates(part)
        if part in DISCOVERED and candidates:
            self._choices.append(
                f"{part}: none of {', '.join(sorted(candidates))} is used: name one with "
                f"--topic {part}=/name"
            )

    def _lacks(self, wanted: str, options: Mapping[str, str]) -> BagError:
        """Return the error for missing topics; options: their names for --topic, and parts."""
        remedies = []
        for option, part in options.items():
            if self._candidates(part):
                remedies.append(f"name one with --topic {option}=/name")
            else:
                remedies.append(f"no topic is a {' or '.join(TYPES[part][:2])}")
                if part == "camera_info":
                    remedies.append(f"give a calibration file with --topic {option}=camera.yaml")
        if not any("/msg/" in kind for kind in self.types.values()):
            remedies = [
                "its messages are not those of ROS 2; convert a recording of ROS 1 with "
                "`rosbags-convert --src drive.bag --dst drive`"
            ]
        return BagError(
            f"bag {self.path} has no usable topic {wanted}: {'; '.join(remedies)}. "
            f"It has {self._listing()}"
        )

    def _listing(self) -> str:
        return ", ".join(f"{topic} ({kind})" for topic, kind in sorted(self.types.items()))


def _key(part: str, camera_name: str) -> str:
    return f"{part}/{camera_name}" if camera_name else part


def _part(key: str) -> str:
    return key.partition("/")[0]


def _camera(key: str) -> str:
    return key.partition("/")[2]


def _stamped(events: Iterator[Event], stamp_ns: int) -> ImageEvent | None:
    """Return the image with a stamp; reads up to it or just beyond."""
    for event in events:
        if isinstance(event, ImageEvent) and event.stamp_ns >= stamp_ns:
            return event if event.stamp_ns == stamp_ns else None
    return None
