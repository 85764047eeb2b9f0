"""The store of teacher distributions. Knows numpy, zarr and numcodecs; nothing of models, torch or Ray."""
