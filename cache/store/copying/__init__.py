"""Copy a store into another one.

In: a snapshot. Out: a store with the same examples in the same units. `copied_units` is what every copy shares;
`transcode` writes another profile. (`cluster.alignment` writes other tokens.)
"""
