"""The roads: how bytes get from one node to another.

`transport` is the port; `transport_memory` and `libp2p_transport` are its adapters. What travels is opaque
here: a connection is authorised by transport identity, a statement never is.
"""
