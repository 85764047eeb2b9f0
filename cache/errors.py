"""What can go wrong, as types. Every message names the value, the place and the fix."""


class LogitbankError(Exception):
    """Base of all errors that end a command in one line and exit code 2."""


class InputError(LogitbankError):
    """An examples file, a configuration or an argument is not usable as given."""


class StoreError(LogitbankError):
    """A store cannot be used: absent, of another format, or asked for something it does not hold."""


class SpecMismatchError(StoreError):
    """Two captures that should be the same content are not."""


class IntegrityError(StoreError):
    """A file of a store is missing, truncated or altered."""
