"""What drivers that are gone have left in a store: their folders and their leases."""

from cache.storage.base import Storage
from cluster.capture.sharing import drivers, leases


def remove_leftovers(storage: Storage, dry_run: bool = False) -> list[str]:
    """Remove what no driver needs any more, or with `dry_run` only list it. Returns the names.

    Leases stay as long as any driver works on the store: it takes over those of others itself. A driver says that it
    works before it takes a lease, so none is lost.
    """
    alive = {driver.name for driver in drivers.drivers_of(storage)}
    names = [f"{drivers.FOLDER}/{name}" for name in storage.names(drivers.FOLDER) if name not in alive]
    if not alive:
        names += [f"{leases.FOLDER}/{name}" for name in storage.names(leases.FOLDER)]
    if not dry_run:
        for name in names:
            storage.remove_folder(name)
    return names
