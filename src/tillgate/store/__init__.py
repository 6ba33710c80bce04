"""The hub's memory: SQL tables, the journal that is its only commit, and reads that bypass it."""
