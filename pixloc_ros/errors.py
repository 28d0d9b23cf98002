"""One family of expected errors: each carries one line that says what, where and what to do."""


class PixlocError(Exception):
    """Base of all errors that a user can cause and mend. The CLI prints it and exits with 1."""


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
    """A training run that cannot be begun, continued or brought to its end."""
