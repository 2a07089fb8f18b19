"""What a command raises to be answered with BAD, or with NO and a code of its own."""

from __future__ import annotations


class Refused(Exception):
    """
    Args:
        text: for the client.
        code: response code without brackets; None makes the answer a BAD.
    """

    def __init__(self, text: str, code: bytes | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
