"""
Passwords that a web application knows: a cred checker for `--auth`, in one file.

Put it where `twisted.plugin` looks, which is a directory `twisted/plugins` (without an
__init__.py) in any directory of PYTHONPATH, and name it:

    mkdir -p /etc/mailplat/twisted/plugins
    cp examples/auth_plugin.py /etc/mailplat/twisted/plugins/web_passwords.py
    export PYTHONPATH=/etc/mailplat
    mailplat plugins
    twistd -n mailplat --auth web:http://127.0.0.1:8000/login

Whoever logs in is asked for there, with HTTP Basic authentication: 200 is yes, 401 and 403 are
no, anything else means that nobody knows, and the mail client tries again later.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from zope.interface import implementer

from mailplat.errors import LoginUnavailable

#: Seconds that an answer may take.
PATIENCE = 10


@implementer(ICredentialsChecker)
class WebChecker:
    """
    Asks a web application.

    Args:
        agent: a `twisted.web.iweb.IAgent`.
        clock: provides IReactorTime.
        url: what to GET.
    """

    # Passwords as they are typed: mailplat offers PLAIN and LOGIN for it, and not SCRAM.
    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, agent: Any, clock: Any, url: str) -> None:
        self._agent = agent
        self._clock = clock
        self._url = url.encode("ascii")

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        """
        The user's name, as it came: mailplat makes an account's name of it.

        Fails with:
            UnauthorizedLogin: the application said no.
            LoginUnavailable: it said nothing that is known here.
        """
        checking = Deferred.fromCoroutine(self._check(credentials.username, credentials.password))
        return checking.addTimeout(PATIENCE, self._clock, onTimeoutCancel=_too_late)

    async def _check(self, username: bytes, password: bytes) -> bytes:
        headers = Headers({"Authorization": [b"Basic " + b64encode(username + b":" + password)]})
        try:
            response = await self._agent.request(b"GET", self._url, headers)
            await readBody(response)
        except Exception as error:
            # Whatever went wrong on the way there and back.
            raise LoginUnavailable(reason=f"{self._url.decode()}: {error}") from error
        if response.code == 200:
            return username
        if response.code in (401, 403):
            raise UnauthorizedLogin
        raise LoginUnavailable(reason=f"{self._url.decode()} answered {response.code}")


def _too_late(failure: Any, seconds: float) -> Any:
    raise LoginUnavailable(reason=f"no answer within {seconds} seconds")


@implementer(ICheckerFactory, IPlugin)
class WebCheckerFactory:
    """Makes a `WebChecker` of the text after `web:`."""

    authType = "web"
    authHelp = "Asks a web application, by HTTP Basic authentication.  The argument is the URL."
    argStringFormat = "URL"
    credentialInterfaces = WebChecker.credentialInterfaces

    def generateChecker(self, argstring: str) -> WebChecker:
        from twisted.internet import reactor

        if not argstring.startswith(("http://", "https://")):
            raise InvalidAuthArgumentString("web: needs a URL, such as web:http://127.0.0.1:8000/login")
        return WebChecker(Agent(reactor, connectTimeout=PATIENCE), reactor, argstring)


# What twisted.plugin finds.
web_checker = WebCheckerFactory()
