"""Several drivers on one store: which of them work, and which has which window of a job.

drivers       each driver says in a folder of the store that it works, and how far it is
leases        a window belongs to the driver that claimed it first
shared_work   the units that this driver captures, and those that it waits for
leftovers     what drivers that are gone have left
"""
