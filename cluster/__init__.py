"""Jobs: the command line, Ray, and what comes out. The top floor; the only one that imports ray."""
