"""
`mailplat account`: who may log in, and who has mail here.

An account stands in two places: in the account file, with what proves its password, and in
the store, with its mailboxes.  A command that stops halfway leaves an account that can log
in or that has mail, never half a mailbox; run again, it does the rest.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import Any

from mailplat.cli import forwards
from mailplat.cli.directory import Directory
from mailplat.cli.directory import add_words as add_directory_words
from mailplat.errors import AccountExists, ConfigurationError, InvalidPassword, MailError, NoSuchAccount
from mailplat.service import ensure_account, ensure_accounts


def add_words(commands: Any) -> None:
    account = commands.add_parser("account", help="make, list and remove accounts, set passwords")
    actions = account.add_subparsers(metavar="ACTION", required=True)

    add = _action(actions, "add", _add, "make an account")
    _named(add)
    _with_password(add)

    _action(actions, "list", _list, "list all accounts")

    remove = _action(actions, "remove", _remove, "remove an account and its mail")
    _named(remove)
    remove.add_argument("--keep-mail", action="store_true", help="only the login; its mail stays")
    remove.add_argument("--yes", action="store_true", help="do not ask")

    password = _action(actions, "password", _password, "set an account's password")
    _named(password)
    _with_password(password)

    many = _action(actions, "import", _import, "make many accounts, all or none")
    many.add_argument("file", metavar="FILE", help="lines of NAME:PASSWORD; - is standard input")


def _action(actions: Any, name: str, run: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=about, description=about.capitalize() + ".", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    add_directory_words(parser)
    return parser


def _named(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        help="the address; where all accounts are in one domain, the part before the @",
    )


def _with_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from the first line of standard input, and do not ask for it",
    )


def _add(words: argparse.Namespace) -> int:
    directory = Directory(words, make=True)
    accounts = directory.accounts
    name = accounts.naming.login_name(words.name)
    if name is None:
        raise ConfigurationError(f"not an address: {words.name}")
    if name in accounts.names():
        raise AccountExists(f"The account {name} exists already")
    name = accounts.add(name, _new_password(words))
    directory.with_store(lambda store: ensure_account(store, name))
    print(name)
    return 0


def _list(words: argparse.Namespace) -> int:
    directory = Directory(words)
    logins = directory.accounts.names()
    mail: list[str] = list(directory.with_store(lambda store: store.accounts()))
    for name in sorted({*logins, *mail}):
        print(name if name in logins else f"{name}  (has mail, cannot log in by the account file)")
    return 0


def _remove(words: argparse.Namespace) -> int:
    directory = Directory(words)
    accounts = directory.accounts
    name = accounts.naming.login_name(words.name) or words.name
    known = name in accounts.names()
    # Who types is asked, once; a script means what it says.
    if not words.keep_mail and not words.yes and sys.stdin.isatty():
        _confirm(name)
    if known:
        # First: nobody may log in while the mail goes away, and have it made anew.
        accounts.remove(name)
        forwards.forget(directory.settings.data, name)
    if not words.keep_mail:
        known = directory.with_store(lambda store: _remove_mail(store, name)) or known
    if not known:
        raise NoSuchAccount(f"No such account: {name}")
    return 0


async def _remove_mail(store: Any, name: str) -> bool:
    if not await store.has_account(name):
        return False
    await store.remove_account(name)
    return True


def _confirm(name: str) -> None:
    answer = input(f"Remove {name} with all its mail?  Type yes: ")
    if answer.strip() != "yes":
        raise ConfigurationError("nothing was removed")


def _password(words: argparse.Namespace) -> int:
    directory = Directory(words)
    name = directory.accounts.naming.login_name(words.name)
    if name not in directory.accounts.names():
        raise NoSuchAccount(f"No such account: {words.name}")
    directory.accounts.set_password(words.name, _new_password(words))
    return 0


def _import(words: argparse.Namespace) -> int:
    # Read first: the command may have to become somebody who may not.
    try:
        if words.file == "-":
            lines = sys.stdin.read().split("\n")
        else:
            with open(words.file, encoding="utf-8") as file:
                lines = file.read().split("\n")
    except OSError as error:
        raise ConfigurationError(f"{words.file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{words.file}: not in UTF-8") from None
    directory = Directory(words, make=True)
    try:
        names = directory.accounts.import_lines(lines)
    except ConfigurationError as error:
        where = os.path.basename(words.file)
        raise ConfigurationError("\n".join(f"{where}: {line}" for line in error.text.splitlines())) from None
    directory.with_store(lambda store: ensure_accounts(store, names))
    print(f"{len(names)} accounts made")
    return 0


def _new_password(words: argparse.Namespace) -> str:
    """
    The password for an account, from standard input or asked for twice.

    Raises:
        InvalidPassword: the two differ, or there is nobody to ask.
    """
    if words.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidPassword("standard input is no terminal: say --password-stdin")
    try:
        password = getpass.getpass("Password: ")
        again = getpass.getpass("Again: ")
    except EOFError:
        raise MailError("no password was given") from None
    if password != again:
        raise InvalidPassword("the two passwords differ")
    return password
