"""The words: what can be said, how it is written, and what the world is after it was said.

Pure. Nothing here knows a clock, a socket, a disk or a die; nothing here judges. A value of these types is
well-formed by construction, and no more than that: whether it is genuine is `comity.attestation`'s to say.
"""
