"""The configuration of a running localizer, in one place."""

from __future__ import annotations

from pixloc_ros.config import Config


class ConfigHolder:
    """Holds the current configuration for everything that must follow its changes.

    Take `current` once per piece of work, a frame or a message, and hand its sections on: nothing
    keeps a section for later, so no copy can go stale. A configuration is frozen and replaced as
    a whole by one assignment, so a thread sees the one before or the one after, never a mixture.
    """

    __slots__ = ("_current",)

    def __init__(self, config: Config):
        self._current = config

    @property
    def current(self) -> Config:
        """Return the configuration in force now."""
        return self._current

    def replace(self, config: Config) -> None:
        """Put another configuration in force."""
        self._current = config
