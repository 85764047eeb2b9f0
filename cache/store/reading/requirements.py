"""What a table or tensors need beside the examples: memory and libraries."""

from importlib import import_module

from cache.errors import InputError

# Tables and tensors are refused above this, unless a caller says otherwise.
MAX_BYTES = 4 << 30
GIB = 1 << 30


def require_fits(size: int, max_bytes: int, examples: int) -> None:
    """Raise InputError unless `size` bytes of so many examples are within `max_bytes`."""
    if size > max_bytes:
        raise InputError(
            f"{examples:,} examples need {_size(size)} or more, and max_bytes allows {_size(max_bytes)}; give fewer "
            "examples or columns, a higher max_bytes, or go through batches()"
        )


def require_library(name: str, method: str) -> None:
    """Raise InputError unless the library can be imported."""
    try:
        import_module(name)
    except ImportError as error:
        raise InputError(f"{method} needs the package {name}, which is not installed; pip install {name}") from error


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size:,} bytes"
