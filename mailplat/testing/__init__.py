"""
Tools for testing parts: contracts that a store must keep, dialogues over a wire, fakes.

For our tests and for yours; nothing in mailplat imports it.
"""
