"""Engines: what answers the requests of a search."""
