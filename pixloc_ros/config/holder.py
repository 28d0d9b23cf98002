"""The current configuration of a running localizer."""

from __future__ import annotations

from pixloc_ros.config import Config


class ConfigHolder:
    """Holds the current configuration for everything that must follow its changes.

    Read `current` once per piece of work (a frame or a message) and pass its sections on. Nothing
    may keep a section longer, so no copy gets outdated. A configuration is frozen and replaced as a
    whole by one assignment, so a thread sees the old one or the new one, never a mixture.
    """

    __slots__ = ("_current",)

    def __init__(self, config: Config):
        self._current = config

    @property
    def current(self) -> Config:
        """The current configuration."""
        return self._current

    def replace(self, config: Config) -> None:
        """Make another configuration the current one."""
        self._current = config
