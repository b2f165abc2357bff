"""Comity: a peer-to-peer attested execution network for data pipelines."""

__version__ = "0.1.0"
