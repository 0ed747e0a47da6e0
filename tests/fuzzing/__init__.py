"""Damaged and forged files of every format that is read, each format in a process of its own: see `child`."""
