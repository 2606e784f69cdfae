"""The errors that archgauge raises on purpose.

Every one derives from `ArchGaugeError` and from the built-in exception that fits, so a caller can catch either.
"""


class ArchGaugeError(Exception):
    """Base of every error that archgauge raises on purpose."""


class ReadError(ArchGaugeError, ValueError):
    """A network could not be read.

    Args:
        message: What is wrong: expected, got, and what to do.
        source: The file (or other name of the source) that was being read.
        node: The node or value the problem sits at, if there is one.
    """

    def __init__(self, message: str, *, source: str = "", node: str = "") -> None:
        self.reason, self.source, self.node = message, source, node
        where = ", ".join(part for part in (source, f"node {node!r}" if node else "") if part)
        super().__init__(f"{where}: {message}" if where else message)


class UnreadableFileError(ReadError, OSError):
    """The file is missing, is a folder, or the system refuses to open it."""


class GraphError(ArchGaugeError, ValueError):
    """A graph breaks a rule of `ArchGraph` (order, indices, shapes)."""


class LimitError(ReadError):
    """A source crosses a size limit that protects the reader; the limits are arguments of `read`."""


class DataError(ArchGaugeError, ValueError):
    """Labels or benchmark files are missing, damaged or out of range."""


class OutputError(ArchGaugeError, OSError):
    """A file or folder cannot be written."""


class DownloadError(DataError, OSError):
    """A benchmark file could not be fetched, or what came is not what was published."""


class ConfigError(ArchGaugeError, ValueError):
    """An option has a value that does not exist or does not fit the others."""


class CheckpointError(ArchGaugeError, ValueError):
    """A saved predictor cannot be loaded: damaged, incomplete, or of a newer format."""


class NotFittedError(ArchGaugeError, ValueError, AttributeError):
    """A predictor was asked for scores before `fit` or `load`."""
