"""The judgement: is it genuine, and does it suffice.

Pure given keys and a time: no clock, socket, disk or die. Everything here is a function of its arguments, so
that two honest peers with the same inputs agree to the byte.
"""
