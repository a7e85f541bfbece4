"""Choosing among plans that several rank: one ranking of all, what it keeps and breaks, what no vote can promise."""
