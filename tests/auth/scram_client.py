"""The client's side of SCRAM-SHA-256, written from RFC 5802 without a look at the server's."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode


class ScramClient:
    """
    One exchange.

    Args:
        gs2: the GS2 header, such as "n,," or "p=tls-exporter,,".
        binding: the channel's data.
    """

    def __init__(
        self,
        username: str,
        password: str,
        *,
        gs2: str = "n,,",
        binding: bytes = b"",
        nonce: str = "fyko+d2lbbFgONRv9qkxdawL",
    ) -> None:
        self.username = username.replace("=", "=3D").replace(",", "=2C")
        self.password = password
        self.gs2 = gs2
        self.binding = binding
        self.nonce = nonce
        self.signature = b""

    def first(self) -> bytes:
        self.bare = f"n={self.username},r={self.nonce}"
        return f"{self.gs2}{self.bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        words = dict(word.split("=", 1) for word in challenge.decode().split(","))
        assert words["r"].startswith(self.nonce) and len(words["r"]) > len(self.nonce) + 15
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), b64decode(words["s"]), int(words["i"]))
        client_key = hmac.new(salted, b"Client Key", "sha256").digest()
        channel = b64encode(self.gs2.encode() + self.binding).decode()
        without_proof = f"c={channel},r={words['r']}"
        message = f"{self.bare},{challenge.decode()},{without_proof}".encode()
        signature = hmac.new(hashlib.sha256(client_key).digest(), message, "sha256").digest()
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.new(salted, b"Server Key", "sha256").digest()
        self.signature = hmac.new(server_key, message, "sha256").digest()
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def trusts(self, proof: bytes) -> bool:
        """Whether the server's last message shows that it knows the password too."""
        return proof == b"v=" + b64encode(self.signature)
