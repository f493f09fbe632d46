"""Callbacks: when things happen in a continual run."""

if __name__ != "cns_lightning.callbacks":
    raise ImportError("import cns_lightning.callbacks: the folder callbacks/ is a part of that package")
