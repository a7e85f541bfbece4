"""Traces of jobs as others publish them, a file a format: each has ``read(path) -> Jobs``.

Errors name the line and the column.
"""
