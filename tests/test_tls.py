"""Certificate sources, over real OpenSSL in memory and one real socket."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailplat.errors import ConfigurationError
from mailplat.tls import CertificateFiles, CertificateSource, self_signed, tls_info


def make(
    directory: str, name: str, *hosts: str, file: str = "", key: Any = None, passphrase: bytes = b""
) -> str:
    """A certificate with its key in one file, for these host names; without any, for its common name."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False
        )
    certificate = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    secrecy: Any = serialization.NoEncryption()
    if passphrase:
        secrecy = serialization.BestAvailableEncryption(passphrase)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
    path = os.path.join(directory, file or f"{name}.pem")
    with open(path, "wb") as out:
        out.write(pem + certificate.public_bytes(serialization.Encoding.PEM))
    return path


class Shaken:
    """Both ends of a connection after a handshake in memory."""

    def __init__(
        self, source: CertificateSource, name: str | None = None, version: int | None = None
    ) -> None:
        self.server = source.serverConnectionForTLS(None)
        self.server.set_accept_state()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if version is not None:
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
        self.client = SSL.Connection(context, None)
        if name is not None:
            self.client.set_tlsext_host_name(name.encode("ascii"))
        self.client.set_connect_state()
        done: set[SSL.Connection] = set()
        for _ in range(10):
            for here, there in ((self.client, self.server), (self.server, self.client)):
                try:
                    here.do_handshake()
                    done.add(here)
                except SSL.WantReadError:
                    pass
                with contextlib.suppress(SSL.WantReadError):
                    there.bio_write(here.bio_read(65536))
            if len(done) == 2:
                return
        raise AssertionError("no handshake")

    @property
    def name(self) -> str:
        certificate = self.client.get_peer_certificate()
        assert certificate is not None
        common = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(common[0].value)

    def getHandle(self) -> SSL.Connection:
        """As a Twisted transport's."""
        return self.server


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.now = 1000.0

    def source(self, *paths: str) -> CertificateSource:
        return CertificateSource([CertificateFiles(path) for path in paths], lambda: self.now)


class Choosing(Case):
    def test_by_name(self) -> None:
        one = make(self.directory, "one", "a.example", "B.example")
        two = make(self.directory, "two", "c.example", "*.d.example")
        three = make(self.directory, "three.example")
        source = self.source(one, two, three)
        for asked, name in (
            (None, "one"),
            ("a.example", "one"),
            ("b.example", "one"),
            ("c.example", "two"),
            ("C.EXAMPLE.", "two"),
            ("x.d.example", "two"),
            ("d.example", "one"),
            ("x.y.d.example", "one"),
            ("three.example", "three.example"),
            ("unknown.example", "one"),
        ):
            self.assertEqual(Shaken(source, asked).name, name, asked)

    def test_pair_of_files(self) -> None:
        both = make(self.directory, "one")
        with open(both) as file:
            key, mark, certificate = file.read().partition("-----BEGIN CERTIFICATE-----")
        paths = [os.path.join(self.directory, name) for name in ("cert", "key")]
        for path, text in zip(paths, (mark + certificate, key), strict=True):
            with open(path, "w") as file:
                file.write(text)
        source = CertificateSource([CertificateFiles(*paths)], lambda: 0.0)
        self.assertEqual(Shaken(source).name, "one")
        with open(both, "w") as file:
            file.write(mark + certificate + key)
        self.assertEqual(Shaken(self.source(both)).name, "one")

    def test_bad_files(self) -> None:
        good, other = make(self.directory, "one"), make(self.directory, "other")
        empty = os.path.join(self.directory, "empty.pem")
        open(empty, "w").close()
        secret = make(self.directory, "secret", passphrase=b"x")
        for files in (
            CertificateFiles(os.path.join(self.directory, "missing.pem")),
            CertificateFiles(good, os.path.join(self.directory, "missing.pem")),
            CertificateFiles(self.directory),
            CertificateFiles(empty),
            CertificateFiles(good, other),
            CertificateFiles(secret),
        ):
            error = self.assertRaises(ConfigurationError, CertificateSource, [files], lambda: 0.0)
            self.assertIn(self.directory, error.text)
        self.assertRaises(ConfigurationError, CertificateSource, [], lambda: 0.0)


class Reloading(Case):
    def test_changed(self) -> None:
        source = self.source(make(self.directory, "old", file="c.pem"))
        make(self.directory, "new", "new.example", file="c.pem")
        self.assertEqual(Shaken(source).name, "old")
        self.now += 1.1
        self.assertEqual(Shaken(source).name, "new")

    def test_replaced_among_several(self) -> None:
        first, second = make(self.directory, "one"), make(self.directory, "two", "two.example")
        source = self.source(first, second)
        make(self.directory, "three", "three.example", file="two.pem")
        self.now += 1.1
        self.assertEqual(Shaken(source, "three.example").name, "three")
        self.assertEqual(Shaken(source, "two.example").name, "one")

    def test_bad_for_a_while(self) -> None:
        path = make(self.directory, "old", file="c.pem")
        source = self.source(path)
        for damage in ("half a fi", "", None):
            if damage is None:
                os.remove(path)
            else:
                with open(path, "w") as file:
                    file.write(damage)
            self.now += 1.1
            self.assertEqual(Shaken(source).name, "old")
        make(self.directory, "new", file="c.pem")
        self.now += 1.1
        self.assertEqual(Shaken(source).name, "new")

    def test_clock_that_jumps_back(self) -> None:
        source = self.source(make(self.directory, "old", file="c.pem"))
        make(self.directory, "new", file="c.pem")
        self.now -= 1000
        self.assertEqual(Shaken(source).name, "new")


class SelfSigned(Case):
    def test_made_once(self) -> None:
        mask = os.umask(0)
        try:
            path = self_signed(self.directory, "mail.example")
        finally:
            os.umask(mask)
        with open(path, "rb") as file:
            first = file.read()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(os.listdir(self.directory), [os.path.basename(path)])
        self.assertEqual(self_signed(self.directory, "other.example"), path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), first)

    def test_names(self) -> None:
        for hostname, names in (
            ("mail.example", {"mail.example", "localhost", "127.0.0.1", "::1"}),
            ("localhost", {"localhost", "127.0.0.1", "::1"}),
            ("192.0.2.1", {"localhost", "192.0.2.1", "127.0.0.1", "::1"}),
            # Machines without a name call themselves so (RFC 5321 §4.1.3).
            ("[192.0.2.1]", {"localhost", "192.0.2.1", "127.0.0.1", "::1"}),
            ("[IPv6:2001:db8::1]", {"localhost", "2001:db8::1", "127.0.0.1", "::1"}),
            ("a" * 60 + ".example", {"a" * 60 + ".example", "localhost", "127.0.0.1", "::1"}),
        ):
            directory = os.path.join(self.directory, hostname)
            os.mkdir(directory)
            with open(self_signed(directory, hostname), "rb") as file:
                certificate = x509.load_pem_x509_certificate(file.read())
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            self.assertEqual({str(name.value) for name in found}, names)
            self.assertEqual(len(found), len(names))

    def test_lasting(self) -> None:
        then = datetime(2030, 1, 1, tzinfo=UTC)
        with open(self_signed(self.directory, "mail.example", lambda: then), "rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read())
        self.assertLess(certificate.not_valid_before_utc, then)
        self.assertGreater(certificate.not_valid_after_utc, then + timedelta(days=3000))


class Negotiated(Case):
    def test_modern(self) -> None:
        source = self.source(make(self.directory, "one"))
        shaken = Shaken(source)
        info = tls_info(shaken)
        assert info is not None
        self.assertEqual((info.version, info.cipher), ("TLSv1.3", shaken.client.get_cipher_name()))
        self.assertEqual(
            info.exporter, shaken.client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        )
        seen = shaken.client.get_peer_certificate()
        assert seen is not None
        self.assertEqual(info.end_point, seen.to_cryptography().fingerprint(hashes.SHA256()))
        # Nothing that pyOpenSSL will take away.
        self.assertEqual([warning["message"] for warning in self.flushWarnings()], [])

    def test_older(self) -> None:
        info = tls_info(Shaken(self.source(make(self.directory, "one")), version=SSL.TLS1_2_VERSION))
        assert info is not None
        self.assertEqual((info.version, info.exporter, len(info.end_point)), ("TLSv1.2", b"", 32))
        self.assertRegex(info.cipher, "ECDHE.*(GCM|CHACHA20)")

    def test_too_old(self) -> None:
        source = self.source(make(self.directory, "one"))
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            self.assertRaises(SSL.Error, Shaken, source, version=version)

    def test_a_certificate_without_a_hash(self) -> None:
        path = make(self.directory, "one", key=ed25519.Ed25519PrivateKey.generate())
        info = tls_info(Shaken(self.source(path)))
        assert info is not None
        self.assertEqual((len(info.exporter), info.end_point), (32, b""))

    def test_in_clear(self) -> None:
        class Clear:
            def getHandle(self) -> object:
                return object()

        source = self.source(make(self.directory, "one"))

        class NotYet:
            def getHandle(self) -> object:
                return source.serverConnectionForTLS(None)

        for transport in (object(), Clear(), NotYet()):
            self.assertIsNone(tls_info(transport))


class Greeter(protocol.Protocol):
    """Says what TLS it sees, once asked; starts TLS if told so."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        if data == b"STARTTLS\n":
            self.transport.write(b"go\n")
            self.transport.startTLS(self.factory.source)  # type: ignore[attr-defined,union-attr]
            return
        info = tls_info(self.transport)
        self.transport.write(f"{info.version if info else 'clear'}\n".encode())


class OnSockets(TestCase):
    """One source for TLS from the start and for STARTTLS, and a client that verifies."""

    async def test_both(self) -> None:
        from twisted.internet import reactor

        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = self_signed(directory.name, "mail.example")
        real: Any = reactor
        factory: Any = protocol.Factory.forProtocol(Greeter)
        factory.source = CertificateSource([CertificateFiles(path)], real.seconds)
        ports = [
            real.listenTCP(0, each, interface="127.0.0.1")
            for each in (factory, TLSMemoryBIOFactory(factory.source, False, factory))
        ]
        try:
            context = ssl.create_default_context(cafile=path)
            for port, start in zip(ports, (True, False), strict=True):
                said = await deferToThread(self.talk, context, port.getHost().port, start)
                self.assertEqual(said, b"TLSv1.3\n")
        finally:
            for port in ports:
                await port.stopListening()

    @staticmethod
    def talk(context: ssl.SSLContext, port: int, start: bool) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
            if start:
                plain.sendall(b"hello\n")
                assert plain.recv(100) == b"clear\n"
                plain.sendall(b"STARTTLS\n")
                assert plain.recv(100) == b"go\n"
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(b"hello\n")
                return secure.recv(100)
