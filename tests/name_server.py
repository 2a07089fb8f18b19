"""A name server on loopback for tests of looking up: it says what it is told to, and can fail."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import ServerFactory
from twisted.names import dns


class NameServer:
    """
    Attributes:
        records: (name, type) -> payloads of the answer; a CNAME of the name goes before them.
        codes: name, or (name, type) -> the code of the answer.
        silent: names that get no answer.
        truncated: answers by UDP say that they do not fit.
        tcp_silent: no answer by TCP.
        spoiled: called with each answer before it is sent.
        negative: seconds in the SOA record of an answer with nothing in it; None for no such record.
        asked: (name, type) of each question, as ("example.com", dns.MX).
    """

    def __init__(self, ttl=300):
        self.ttl = ttl
        self.records = {}
        self.codes = {}
        self.silent = set()
        self.truncated = self.tcp_silent = False
        self.spoiled = lambda message: None
        self.negative = 60
        self.asked = []
        self.by_tcp = 0
        self._tcp_protocols = []

    def start(self):
        """Listen; UDP and TCP have the same port, so a port that TCP cannot have is given back."""
        factory = ServerFactory()
        factory.buildProtocol = self._tcp_protocol
        for _ in range(50):
            self._udp = reactor.listenUDP(0, dns.DNSDatagramProtocol(self, reactor), "127.0.0.1")
            try:
                self._tcp = reactor.listenTCP(self._udp.getHost().port, factory, interface="127.0.0.1")
                break
            except Exception:
                self._udp.stopListening()
        self.address = ("127.0.0.1", self._udp.getHost().port)
        return self

    async def stop(self):
        await self.stop_tcp()
        await self._udp.stopListening()

    async def stop_tcp(self):
        for protocol in list(self._tcp_protocols):
            protocol.transport.abortConnection()
        await maybeDeferred(self._tcp.stopListening)

    def add(self, name, *payloads):
        for payload in payloads:
            self.records.setdefault((name, payload.TYPE), []).append(payload)

    def _tcp_protocol(self, address):
        protocol = dns.DNSProtocol(self, reactor)
        return protocol

    def connectionMade(self, protocol):
        self._tcp_protocols.append(protocol)

    def connectionLost(self, protocol):
        self._tcp_protocols.remove(protocol)

    def messageReceived(self, message, protocol, address=None):
        tcp = address is None
        self.by_tcp += tcp
        question = message.queries[0]
        name, kind = question.name.name.decode("ascii").lower(), question.type
        self.asked.append((name, kind))
        if name in self.silent or (tcp and self.tcp_silent):
            return
        answer = dns.Message(message.id, answer=1, recDes=1, recAv=1)
        answer.queries = [question]
        answer.rCode = self.codes.get((name, kind), self.codes.get(name, dns.OK))
        seen = set()
        while alias := self.records.get((name, dns.CNAME)):
            answer.answers.append(self._header(name, alias[0]))
            name = alias[0].name.name.decode("ascii")
            answer.rCode = self.codes.get(name, dns.OK)
            if name in seen:
                break
            seen.add(name)
        answer.answers += [self._header(name, payload) for payload in self.records.get((name, kind), ())]
        known = {known for known, _ in self.records}
        if answer.rCode == dns.OK and name not in known:
            answer.rCode = dns.ENAME
        if not self.records.get((name, kind)) and self.negative is not None:
            soa = dns.Record_SOA(b"ns.test", b"admin.test", minimum=self.negative, ttl=3600)
            answer.authority = [dns.RRHeader(b"test", dns.SOA, dns.IN, 3600, soa)]
        if self.truncated and not tcp:
            answer.answers, answer.trunc = [], 1
        if tcp:
            answer.maxSize = 0
        self.spoiled(answer)
        protocol.writeMessage(answer, *(() if tcp else (address,)))

    def _header(self, name, payload):
        return dns.RRHeader(name.encode(), payload.TYPE, dns.IN, self.ttl, payload)
