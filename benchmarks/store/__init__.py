"""The store beside other formats: bytes, and rates of writing and reading.

    __main__.py       python -m benchmarks.store: ours and the peers, on the same rows
    records.py        rows as records of the store
    peer.py           the Peer protocol        peers.py, zarr_peers.py, mds_peer.py    the peers
    codes.py          which codebook makes ids smallest
    scale.py          cost by the number of tokens and of units
    teacher_rows.py   rows of a trained teacher, as a file for the others

In: rows of top-k log-probabilities. Out: results/store_*.json. To add a peer, add a class to peers.PEERS.
"""
