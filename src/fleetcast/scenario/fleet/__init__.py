"""The fleet: devices, links, the tree that joins them, and the signals they live under.

Everything here is a value or a look-up; nothing decides. Data stands in `catalog/`, one sourced row
per thing.
"""
