"""
SASL mechanisms without I/O: PLAIN, LOGIN, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.

Bytes as they are after base64 go in, what they say or what to answer comes out.  Whoever
drives an exchange sends the challenges, finds the user's record and takes the time; see
`mailplat.auth.login`.  Whatever is wrong with a peer's message is `MalformedLogin`, without
a word about what: a client has no use for it, and a guesser might.

How SCRAM goes (RFC 5802 §3), from the server's side::

    username = server.first(client_first)         # whose record is needed
    challenge = server.challenge(record)          # send it, get client_final
    proof = server.final(client_final)            # b"" unless the client knows the password

and from the client's::

    send(client.first())
    salt, iterations = client.challenge(server_first)
    send(client.final(salted_password(password, salt, iterations)))
    client.trusts(server_final)                   # the server knows the password too
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mailplat.errors import LoginFailed, MalformedLogin
from mailplat.values import ScramRecord

PLAIN: Final = "PLAIN"
LOGIN: Final = "LOGIN"
SCRAM: Final = "SCRAM-SHA-256"
SCRAM_PLUS: Final = "SCRAM-SHA-256-PLUS"

# The prompts that clients in the field look for (draft-murchison-sasl-login §2).
LOGIN_USERNAME: Final = b"Username:"
LOGIN_PASSWORD: Final = b"Password:"

#: Octets of a client's message; a session's own limit on lines may be lower.
MOST_MESSAGE: Final = 4096

#: Rounds of PBKDF2 in new records; RFC 7677 §4 asks for 4096 at least.
ITERATIONS: Final = 100_000


# Preparation of names and passwords


def saslprep(text: str) -> str:
    """
    Prepare a user name or password for comparing or hashing (RFC 4013).

    Unassigned code points pass, as they do in a query (RFC 3454 §7).

    Raises:
        ValueError: a prohibited character, or text of mixed direction.
    """
    if text.isascii():
        if not text.isprintable():
            raise ValueError("control character")
        return text
    # RFC 4013 §2.1: non-ASCII spaces become a space, what is commonly mapped to nothing goes.
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)  # RFC 4013 §2.2
    for char in prepared:
        if any(prohibited(char) for prohibited in _PROHIBITED):
            raise ValueError("prohibited character")
    # RFC 3454 §6: right-to-left text has no left-to-right letters, and begins and ends in itself.
    if any(stringprep.in_table_d1(char) for char in prepared):
        if any(stringprep.in_table_d2(char) for char in prepared):
            raise ValueError("mixed direction")
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            raise ValueError("mixed direction")
    return prepared


# RFC 4013 §2.3
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepared_name(name: bytes) -> bytes:
    """A user name after SASLprep; as it is where that is not possible, and then it is nobody's."""
    try:
        return saslprep(name.decode("utf-8")).encode("utf-8")
    except ValueError:
        return name


def prepared_password(password: bytes) -> bytes:
    """
    A password after SASLprep, for hashing.

    What can't be prepared becomes something that no password is.  It must not stay as it
    was: HMAC takes a key with NULs at its end for the key without them.
    """
    try:
        return saslprep(password.decode("utf-8")).encode("utf-8")
    except ValueError:
        return b"\xff" + password


def may_be_used(text: bytes) -> bool:
    """Whether SASLprep lets `text` be a name or a password: UTF-8, nothing prohibited, something left."""
    try:
        return bool(saslprep(text.decode("utf-8")))
    except ValueError:
        return False


# PLAIN


@dataclass(frozen=True, slots=True, repr=False)
class Plain:
    """
    What a PLAIN message says (RFC 4616 §2).

    Attributes:
        authzid: whom the client wants to act for, after SASLprep; empty for itself.
        username: whose password it is, after SASLprep.
        password: as it came.
    """

    authzid: bytes
    username: bytes
    password: bytes

    @classmethod
    def parse(cls, message: bytes) -> Plain:
        """
        Raises:
            MalformedLogin.
        """
        if len(message) > MOST_MESSAGE:
            raise MalformedLogin
        _text(message)
        parts = message.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise MalformedLogin
        return cls(prepared_name(parts[0]), prepared_name(parts[1]), parts[2])


# SCRAM

_FIRST = re.compile(
    rb"(?P<gs2>(?P<flag>[ny]|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,\0]+))?,)"
    rb"(?P<bare>n=(?P<name>[^,\0]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*)"
)
_FINAL = re.compile(
    rb"(?P<bare>c=(?P<binding>[A-Za-z0-9+/]+={0,2}),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)"
    rb"(?:,[A-Za-z]=[^,\0]+)*),p=(?P<proof>[A-Za-z0-9+/]+={0,2})"
)
_CHALLENGE = re.compile(
    rb"r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+),s=(?P<salt>[A-Za-z0-9+/]+={0,2}),i=(?P<iterations>[1-9][0-9]{0,9})"
    rb"(?:,[A-Za-z]=[^,\0]+)*"
)
_ESCAPED = re.compile(rb"=(?!2C|3D)")


class ScramServer:
    """
    The server's side of one SCRAM-SHA-256 exchange (RFC 5802, RFC 7677).

    Args:
        bindings: the channel's binding data by name, such as "tls-exporter"; not empty
            means that SCRAM-SHA-256-PLUS was offered to the client.
        nonce: unguessable bytes, at least 18 of them.
        plus: the client chose SCRAM-SHA-256-PLUS.

    Attributes:
        authzid: whom the client wants to act for, after SASLprep; empty for itself.
    """

    def __init__(self, bindings: Mapping[str, bytes], nonce: bytes, *, plus: bool) -> None:
        self._bindings = bindings
        self._plus = plus
        self._nonce = b64encode(nonce)
        self._header = b""
        self._binding = b""
        self._client_first = b""
        self._server_first = b""
        self._record: ScramRecord | None = None
        self.authzid = b""

    def first(self, message: bytes) -> bytes:
        """
        Read client-first-message (RFC 5802 §7).

        Returns:
            the user name after SASLprep.

        Raises:
            MalformedLogin: also for a channel binding that there is not.
            LoginFailed: the client thinks that we have no channel binding: somebody took
                SCRAM-SHA-256-PLUS out of our offer.
        """
        found = _FIRST.fullmatch(message) if len(message) <= MOST_MESSAGE else None
        if found is None:
            raise MalformedLogin
        _text(message)
        if (found["binding"] is not None) != self._plus:
            raise MalformedLogin
        if self._plus:
            name = found["binding"].decode("ascii")
            if name not in self._bindings:
                raise MalformedLogin
            self._binding = self._bindings[name]
        elif found["flag"] == b"y" and self._bindings:
            # RFC 5802 §6: 'y' although we offered it: a downgrade attack.
            raise LoginFailed(reason="SCRAM channel binding was hidden from the client")
        self._header = found["gs2"]
        self._client_first = found["bare"]
        self._nonce = found["nonce"] + self._nonce
        self.authzid = _name(found["authzid"] or b"")
        return _name(found["name"])

    def challenge(self, record: ScramRecord) -> bytes:
        """The server-first-message for the user's record, which may be an invented one."""
        self._record = record
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, b64encode(record.salt), record.iterations)
        return self._server_first

    def final(self, message: bytes) -> bytes:
        """
        Read client-final-message (RFC 5802 §3, §7).

        Returns:
            server-final-message if the client knows the password and the record is a
            real one, else nothing.

        Raises:
            MalformedLogin.
        """
        record = self._record
        found = _FINAL.fullmatch(message) if len(message) <= MOST_MESSAGE else None
        if found is None or record is None:
            raise MalformedLogin
        proof = _base64(found["proof"])
        binding = _base64(found["binding"])
        if len(proof) != 32 or found["nonce"] != self._nonce:
            raise MalformedLogin
        authentic = b",".join((self._client_first, self._server_first, found["bare"]))
        signature = hmac.digest(record.stored_key, authentic, "sha256")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        server = hmac.digest(record.server_key, authentic, "sha256")
        # All three are computed before any is looked at, so that the time tells nothing.
        bound = hmac.compare_digest(binding, self._header + self._binding)
        proven = hmac.compare_digest(hashlib.sha256(client_key).digest(), record.stored_key)
        return b"v=" + b64encode(server) if bound & proven & record.known else b""


class ScramClient:
    """
    The client's side of one SCRAM-SHA-256 exchange (RFC 5802, RFC 7677).

    Args:
        username: UTF-8, as it is to be sent.
        nonce: unguessable bytes, at least 18 of them.
        binding: the channel's (name, data) for SCRAM-SHA-256-PLUS; None without it.
        could_bind: without it: we could have bound the channel, had the server offered to.
    """

    def __init__(
        self,
        username: bytes,
        nonce: bytes,
        binding: tuple[str, bytes] | None = None,
        could_bind: bool = False,
    ) -> None:
        data = b""
        if binding is not None:
            self._header = f"p={binding[0]},,".encode("ascii")
            data = binding[1]
        else:
            # RFC 5802 §6: 'y' lets the server find out that its offer was tampered with.
            self._header = b"y,," if could_bind else b"n,,"
        self._channel = b64encode(self._header + data)
        self._nonce = b64encode(nonce)
        name = username.replace(b"=", b"=3D").replace(b",", b"=2C")
        self._bare = b"n=%b,r=%b" % (name, self._nonce)
        self._server_first = b""
        self._authentic = b""
        self._server_key = b""

    def first(self) -> bytes:
        """The client-first-message."""
        return self._header + self._bare

    def challenge(self, message: bytes) -> tuple[bytes, int]:
        """
        Read server-first-message (RFC 5802 §7).

        Returns:
            salt and iterations, for `salted_password`.

        Raises:
            MalformedLogin.
        """
        found = _CHALLENGE.fullmatch(message) if len(message) <= MOST_MESSAGE else None
        # RFC 5802 §5.1: the server adds to our nonce; one that does not may be replaying.
        if found is None or len(found["nonce"]) <= len(self._nonce):
            raise MalformedLogin
        if not found["nonce"].startswith(self._nonce):
            raise MalformedLogin
        self._nonce = found["nonce"]
        self._server_first = message
        return _base64(found["salt"]), int(found["iterations"])

    def final(self, salted: bytes) -> bytes:
        """The client-final-message."""
        without_proof = b"c=%b,r=%b" % (self._channel, self._nonce)
        self._authentic = b",".join((self._bare, self._server_first, without_proof))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        self._server_key = hmac.digest(salted, b"Server Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), self._authentic, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return b"%b,p=%b" % (without_proof, b64encode(proof))

    def trusts(self, message: bytes) -> bool:
        """Read server-final-message: whether the server knows the password, too."""
        signature = hmac.digest(self._server_key, self._authentic, "sha256")
        return hmac.compare_digest(message, b"v=" + b64encode(signature))


def salted_password(password: bytes, salt: bytes, iterations: int) -> bytes:
    """
    The costly step: PBKDF2 of a password after `prepared_password` (RFC 5802 §2.2, Hi).

    Some 33 ms for 100,000 rounds; releases the interpreter lock meanwhile.
    """
    return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)


def record_of(salted: bytes, salt: bytes, iterations: int) -> ScramRecord:
    """The record that a server keeps of a salted password (RFC 5802 §3)."""
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramRecord(salt, iterations, hashlib.sha256(client_key).digest(), server_key)


def proves(salted: bytes, record: ScramRecord) -> bool:
    """Whether a salted password is the one that `record` was made of; never for an invented record."""
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), record.stored_key) & record.known


def _name(escaped: bytes) -> bytes:
    """Undo the escaping of a saslname (RFC 5802 §5.1)."""
    if _ESCAPED.search(escaped):
        raise MalformedLogin
    try:
        text = escaped.replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8")
        name = saslprep(text).encode("utf-8")
    except ValueError:
        raise MalformedLogin from None
    if escaped and not name:
        raise MalformedLogin
    return name


def _text(message: bytes) -> None:
    try:
        message.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedLogin from None


def _base64(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise MalformedLogin from None
