"""Errors for users. Every message contains the value, the location and the fix."""

from json import JSONDecodeError


class LogitbankError(Exception):
    """Base of all errors that end a command with one line and exit code 2."""


class InputError(LogitbankError):
    """An examples file, a configuration or an argument is invalid."""


class StoreError(LogitbankError):
    """A store cannot be used: it is absent, has another format, or does not contain what was requested."""


class ExampleIndexError(StoreError, IndexError):
    """A store has no example of this number."""


class SpecMismatchError(StoreError):
    """A store has another spec than requested."""


class IntegrityError(StoreError):
    """A file of a store is missing, truncated or altered."""


class NewerFormatError(LogitbankError):
    """A file of a store needs a newer version of logitbank. It is not damaged: nothing may repair or replace it."""


def plain_reason(error: Exception) -> str:
    """Why a file could not be read, in plain words: missing, not UTF-8, or where its JSON is wrong."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start + 1}); save the file as UTF-8"
    if isinstance(error, JSONDecodeError):
        return f"is not valid JSON: {error.msg.lower()}, at line {error.lineno}, character {error.colno}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower().replace("no such file or directory", "no such file")
    return " ".join(str(error).split()) or type(error).__name__
