"""The family of expected errors: each message is one line that says what, where and what to do."""

from __future__ import annotations

_MAX_LENGTH = 1000  # characters of a message


class PixlocError(Exception):
    """Base of all errors that a user can cause and correct. The CLI prints it and exits with 1.

    The text is one printable line, even if it quotes files or messages.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


def one_line(text: object, max_length: int = _MAX_LENGTH) -> str:
    """Return text of any origin as one line of printable characters, cut if it is too long.

    Needed because terminals obey control characters, and logs and diagnostics are read line by
    line.
    """
    text = str(text)
    words = " ".join(text[:max_length].split())
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    whole = len(text) <= max_length and len(line) <= max_length
    return line if whole else f"{line[: max_length - 4]} ..."


class ConfigError(PixlocError):
    """A configuration value, key or file that cannot be used."""


class WeightsError(PixlocError):
    """Network weights that are missing, altered or of another architecture."""


class CameraError(PixlocError):
    """A camera model or calibration that cannot be used."""


class MapError(PixlocError):
    """A map, or the model and images a map is built from, that cannot be used."""


class BagError(PixlocError):
    """A bag that cannot be read, or lacks the topics that are needed."""


class DataError(PixlocError):
    """Images, poses, trajectories or other files that cannot be used."""


class TrainingError(PixlocError):
    """A training run that cannot be started, continued or completed."""
