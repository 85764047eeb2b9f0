"""Errors for users. Every message contains the value, the location and the fix."""


class LogitbankError(Exception):
    """Base of all errors that end a command with one line and exit code 2."""


class InputError(LogitbankError):
    """An examples file, a configuration or an argument is invalid."""


class StoreError(LogitbankError):
    """A store cannot be used: it is absent, has another format, or does not contain what was requested."""


class SpecMismatchError(StoreError):
    """A store has another spec than requested."""


class IntegrityError(StoreError):
    """A file of a store is missing, truncated or altered."""
