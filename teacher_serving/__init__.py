"""Teachers: an open-weight model becomes records of the store. Never imports student or Ray."""
