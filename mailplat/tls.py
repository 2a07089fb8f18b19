"""
Where TLS certificates come from.

A `CertificateSource` holds one or more certificates in PEM files, chooses among them by
the name that the client asks for, and reads a file again when it changes.  The same
object serves STARTTLS (`transport.startTLS(source)`) and TLS from the first byte
(`TLSMemoryBIOFactory(source, False, factory)`).

`self_signed` makes a certificate for a server that has none; `tls_info` says what a
connection negotiated, with its channel bindings.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from mailplat.errors import ConfigurationError
from mailplat.values import TLSInfo

log = Logger()

#: What TLS 1.2 may use: forward secrecy and authenticated encryption (RFC 9325 §4.2); 1.3 has no others.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"

#: Seconds between two looks at the files.
_LOOK_AGAIN = 1.0

#: How long a self-signed certificate lasts.  There is nobody who would renew it.
_LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """
    A certificate and its key.

    Attributes:
        certificate: a PEM file, the server's own certificate first, then those that lead to the root.
        key: a PEM file, "" if the key is in `certificate`.
    """

    certificate: str
    key: str = ""


class _Loaded:
    """A pair of files as last read."""

    def __init__(self, files: CertificateFiles, choose: Callable[[SSL.Connection], None]) -> None:
        self.files = files
        self._choose = choose
        self.seen = self._identify()
        self.context, self.names = self._load()

    def look(self) -> bool:
        """Read the files again if they changed; whether they did.  Bad files are logged and not used."""
        identity = self._identify()
        if identity == self.seen:
            return False
        self.seen = identity
        try:
            self.context, self.names = self._load()
        except ConfigurationError as error:
            log.error("The certificate stays as it was: {error}", error=error.text)
            return False
        log.info("Certificate {path} read again", path=self.files.certificate)
        return True

    def _identify(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in (self.files.certificate, self.files.key):
            try:
                stat = os.stat(path or self.files.certificate)
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append(None)
        return found

    def _load(self) -> tuple[SSL.Context, frozenset[str]]:
        certificate, key = self.files.certificate, self.files.key or self.files.certificate
        for path in (certificate, key):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ConfigurationError(f"{path}: {error.strerror}") from None
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(_CIPHERS)
        # Sessions are resumed by tickets; a name for them is needed only where clients are verified.
        context.set_session_id(b"mailplat")
        context.set_tlsext_servername_callback(self._choose)
        try:
            context.use_certificate_chain_file(certificate)
            with open(key, "rb") as file:
                context.use_privatekey(_private_key(file.read()))
            context.check_privatekey()
            with open(certificate, "rb") as file:
                names = _names_in(x509.load_pem_x509_certificate(file.read()))
        # TypeError: the key has a passphrase, which there is nobody to ask for.
        except (SSL.Error, ValueError, TypeError, OSError) as error:
            raise ConfigurationError(
                f"{certificate}: no usable certificate with its key", reason=repr(error)
            ) from None
        return context, names


@implementer(IOpenSSLServerConnectionCreator)
class CertificateSource:
    """
    Certificates for servers.

    Args:
        files: the first is for clients that ask for no name, or one that no certificate has.
        seconds: a clock that does not jump, such as `reactor.seconds`.

    Raises:
        ConfigurationError: a file can't be read, or holds no certificate with its key.
    """

    def __init__(self, files: Sequence[CertificateFiles], seconds: Callable[[], float]) -> None:
        if not files:
            raise ConfigurationError("No certificate")
        self._loaded = [_Loaded(pair, self._choose) for pair in files]
        self._seconds = seconds
        self._looked = seconds()
        self._by_name: dict[str, _Loaded] = {}
        self._index()

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """A connection for Twisted's TLS, with the certificates as the files are now."""
        self._look()
        return SSL.Connection(self._loaded[0].context, None)

    def _look(self) -> None:
        now = self._seconds()
        if 0 <= now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        # A list, not a generator: each must be looked at.
        if any([loaded.look() for loaded in self._loaded]):
            self._index()

    def _index(self) -> None:
        self._by_name = {}
        for loaded in self._loaded:
            for name in loaded.names:
                self._by_name.setdefault(name, loaded)

    def _choose(self, connection: SSL.Connection) -> None:
        """Called by OpenSSL in the handshake (RFC 6066 §3)."""
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower().removesuffix(".")
        # RFC 9525 §6.3: a wildcard stands for one whole label.
        found = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
        if found is not None and found is not self._loaded[0]:
            connection.set_context(found.context)


def _today() -> datetime:
    return datetime.now(UTC)


def self_signed(directory: str, hostname: str, now: Callable[[], datetime] = _today) -> str:
    """
    The path of a self-signed certificate with its key, made now unless it is there already.

    It is for `hostname` and this machine: localhost, 127.0.0.1 and ::1.  The file has mode
    0600, and appears whole or not at all.

    Raises:
        OSError: `directory` can't be written.
    """
    path = os.path.join(directory, "self-signed.pem")
    if os.path.exists(path):
        return path
    key = ec.generate_private_key(ec.SECP256R1())
    # X.520 allows 64 characters in a common name; the names that count are the alternative ones.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    began = now() - timedelta(days=1)  # for clients whose clock is behind
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(hostname)), critical=False)
        # Its own authority, so that a client can be told to trust it.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    fresh = f"{path}.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    return path


def tls_info(transport: Any) -> TLSInfo | None:
    """
    What a transport negotiated; None in clear, or before the handshake is complete.

    `transport` is a Twisted transport: one that did `startTLS`, or a TLSMemoryBIOProtocol.
    """
    handle = getattr(transport, "getHandle", None)
    connection = handle() if handle is not None else None
    if not isinstance(connection, SSL.Connection):
        return None
    cipher = connection.get_cipher_name()
    if cipher is None:
        return None
    version = connection.get_protocol_version_name()
    exporter = b""
    if version == "TLSv1.3":
        # RFC 9266 §2.  For TLS 1.2 it needs an extended master secret (§4.2), which can't be seen from here.
        exporter = connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    return TLSInfo(version, cipher, exporter, _end_point(connection))


def _end_point(connection: SSL.Connection) -> bytes:
    """RFC 5929 §4.1: the hash of the server's certificate, by its signature's algorithm or SHA-256."""
    # A server has one of its own; we, as a client, have none and are shown the server's.
    certificate = connection.get_certificate(as_cryptography=True) or connection.get_peer_certificate(
        as_cryptography=True
    )
    if certificate is None:
        return b""
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return b""
    if algorithm is None:
        # Such as Ed25519, which has no hash of its own: undefined (RFC 5929 §4.1).
        return b""
    if isinstance(algorithm, (hashes.MD5, hashes.SHA1)):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)


def _private_key(pem: bytes) -> Any:
    # It may stand before the certificates or after them; cryptography looks at the first block.
    start = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", pem)
    return serialization.load_pem_private_key(pem[start.start() if start else 0 :], None)


def _alternative_names(hostname: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    # An address literal (RFC 5321 §4.1.3) is the address that stands in it.
    bare = hostname.strip("[]").removeprefix("IPv6:")
    for name in dict.fromkeys((bare, "localhost")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    for address in ("127.0.0.1", "::1"):
        loopback = x509.IPAddress(ipaddress.ip_address(address))
        if loopback not in names:
            names.append(loopback)
    return names


def _names_in(certificate: x509.Certificate) -> frozenset[str]:
    """The host names that a certificate is for, in lower case."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return frozenset(name.lower() for name in found.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return frozenset(str(name.value).lower() for name in common)
