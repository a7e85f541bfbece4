"""Measuring the machine at hand."""
