"""Every bound of the protocol, with the reason for its value.

Raising a bound is a change of protocol; lowering one refuses records that others admit. Bounds that only
one node needs (its own queues and caches) live beside the code that they bound.
"""

from __future__ import annotations

from typing import Final

# Encoding
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
"""Integers fit 64 bits signed: what SQLite, PostgreSQL and Cedar hold without loss."""
DEPTH_MAX: Final = 16
"""Nesting of a value. The deepest record uses 8; a parser's stack must never depend on a stranger."""
VALUES_MAX: Final = 262_144
"""Values in one value, counted before any is built: a byte of them can take hundreds in memory. No body of 1 MiB
that is a record of ours holds as many."""
STRING_BYTES_MAX: Final = 65_536
"""One text string: a whole Cedar bundle is the longest there is."""

# Records
HEADER_BYTES_MAX: Final = 8_192
"""A header has a fixed set of short fields."""
BODY_BYTES_MAX: Final = 1_048_576
"""A body: the largest ask frame is 1 MiB, and nothing that is judged is larger."""
SIGNATURES_MAX: Final = 64
"""Signatures on one record: a unanimous epoch carries one per member, old and new."""
RECORD_BYTES_MAX: Final = BODY_BYTES_MAX + HEADER_BYTES_MAX + SIGNATURES_MAX * 4_096
"""A whole record. A signature of the largest suite foreseen (ML-DSA-65) takes 3,309 bytes."""
SALT_BYTES: Final = 32
"""Salt of a body: with it a digest confirms no guess of the body after erasure."""
SUBJECTS_MAX: Final = 64
OWNER_RULES_BYTES_MAX: Final = 8_192
"""The rules of an owner. Every member compiles those of every other whenever they arrive: about 20 ms at this size.
The epoch's own bundles, which all members agreed on, have as much as a string holds."""
SCOPES_MAX: Final = 16

# Names
NAME_BYTES_MAX: Final = 255
"""A name of DNS, SPIFFE path or asset: what file systems and DNS carry."""

# Membership
MEMBERS_MAX: Final = 13
"""A scope up to 13 judges whole; a larger one elects a council of 7 to 13."""
NODES_PER_MEMBER_MAX: Final = 8
"""Nodes of one member that others connect with, by its newest certificates: its surplus costs nobody else."""
SCOPE_DEPTH_MAX: Final = 4
NAMESPACES_PER_MEMBER_MAX: Final = 64
ENGINES_MAX: Final = 2
POLICIES_MAX: Final = 16

# Intents
ITEMS_MAX: Final = 10_000
CLASSES_MAX: Final = 32
"""Items of an intent fall into few kinds of thing; each is judged once."""
COLUMNS_MAX: Final = 1_024
INPUTS_PER_CLASS_MAX: Final = 64
OWNERS_MAX: Final = 32
TERMS_MAX: Final = 32
"""Data classes, and restrictions, of one governance state: what a header has room for."""

# Asks, votes, permits
RELIED_MAX: Final = 256
ASK_BYTES_MAX: Final = 1_048_576
VOTE_BYTES_MAX: Final = 65_536
ASK_BODY_BYTES_MAX: Final = 65_536
"""The body of an ask names `RELIED_MAX` records: some 9 kB."""
ACTUATION_BYTES_MAX: Final = 491_520
"""The body of an actuation, with `COLUMNS_MAX` names of columns some 300 kB. Two of them, whole, fit into the proof
that they contradict each other, as two votes and two asks do: nobody escapes one by padding."""
ADVERSE_PER_VOTE_MAX: Final = 32
ADVERSE_PER_SUBJECT_MAX: Final = 64
"""Adverse records of one member about one record that are looked at: twice what a vote can name."""
ASK_PAST_S: Final = 30
ASK_AHEAD_S: Final = 5
"""A node votes only if t lies from 30 s before to 5 s after its clock."""
START_MARGIN_S: Final = 5
"""... and later than its own process start plus the 5 s that t may lie ahead."""
LEASE_S: Final = 600
"""Votes expire this long after t."""
LEASE_S_MAX: Final = 3_600
ASKS_PER_INTENT_MAX: Final = 50
ASK_AGE_S_MAX: Final = 7 * 24 * 3_600
ASK_BACKOFF_S_MIN: Final = 10
ASK_BACKOFF_S_MAX: Final = 600

# Evidence
ENDORSEMENT_BYTES_MAX: Final = 262_144
"""A chain of certificates with its revocation lists, of the largest vendor some 100 kB."""
CLAIMS_MAX: Final = 16
"""Claims of one appraisal: the trustworthiness vector of AR4SI has eight."""
SEALED_SHARE_BYTES_MAX: Final = 4_096
"""One share of a key, sealed: with a post-quantum encapsulation some 1,200 bytes."""
SIGNED_NOTE_BYTES_MAX: Final = 4_096
"""A signature of the largest suite foreseen, as on records."""

# Reach
ADDRESSES_MAX: Final = 16
"""Addresses of one node."""

# Credentials
CHAIN_MAX: Final = 8
"""Links from the taxonomy to the subject."""
PATTERNS_MAX: Final = 64

# Explaining
LIFT_SET_MAX: Final = 3
LIFT_SEARCH_MAX: Final = 256
"""Judgements that one dry run may cost."""

# Frames between peers
FRAME_BYTES_MAX: Final = 4 * 1_048_576
"""One frame: an ask with its records, or one page."""
PAGE_BYTES_MAX: Final = 65_536
PAGE_RECORDS_MAX: Final = 128
FETCH_IDS_MAX: Final = 256
IN_FLIGHT_MAX: Final = 32
"""Requests that one peer may have open with us at once."""

# Gossip
NOTICES_PER_S: Final = 50
"""Notices of all nodes of a coalition together: each costs every node 4 to 9 ms, whoever forwards it."""
NOTICE_BYTES_MAX: Final = 16_384
NOTICE_RECORDS_MAX: Final = 32
"""What more there is comes by the next notice, or by pull."""
NOTICE_HEADS_MAX: Final = 16

# Bundles
BUNDLE_BYTES_MAX: Final = 64 * 1_048_576
BUNDLE_RECORDS_MAX: Final = 100_000
ROOTS_BYTES_MAX: Final = 65_536
