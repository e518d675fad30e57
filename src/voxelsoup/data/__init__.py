"""Data sets: one reader per folder layout, the phantom, and the index with its checks."""
