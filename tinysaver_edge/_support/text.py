"""Text from outside, made fit for terminals, logs and decisions."""

from __future__ import annotations

import re
import unicodedata

from tinysaver_edge._support.limits import MOST_LINE, MOST_NAME, MOST_TEXT

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Kinds of characters that steer a terminal, turn the reading around or show nothing."""

_JOINERS = "\u200c\u200d"
"""Of no such power, and letters of some languages need them."""

_SCHEME = r"[a-z][a-z0-9+.-]{1,20}:(?://|/(?!/))(?!\[USER)"
_ADDRESS = re.compile(rf"(?i){_SCHEME}")
"""With one slash as well: so stands an address that was given, and taken, for a path."""

_SPACED = re.compile(rf"(?i)({_SCHEME})[^\s/]*:")
"""Of a login whose password has spaces: what ends at the next ``@`` of the line."""

_BARE_LOGIN = re.compile(r"(?<![\w/.…-])[\w.%+-]{1,64}:(?!//)[^\s@…]{0,200}@(?=[\w\[])")
"""Without any scheme: ``user:password@host``, as libraries quote what they do not understand."""

_SECRETS = (
    r"(?:pass\w{0,64}|pwd|psw|pw|token|secret|\w{0,64}key(?:id)?|auth\w{0,64}|user\w{0,64}|usr|login|"
    r"(?:X-\w{1,9}-)?(?:cred\w{0,64}|sig\w{0,64}|security-token)|sess\w{0,64})="
)
"""Bounded: a text without end would take a time that grows with its square."""

_SECRET = re.compile(rf"(?i)({_SECRETS})[^/&;]*")
_ASKED_WITH = re.compile(rf"(?i)([?&#;]{_SECRETS})[^\s&;#'\"]*")


def printable(text: str) -> str:
    r"""Return a text with every character that is none to be seen written as its escape.

    Terminals act upon some (ESC, BEL, backspace), others turn the order of what follows around.
    Line breaks and tabs become spaces.

    Example:
        >>> printable("a\x1b[2Jb\nc")
        'a\\x1b[2Jb c'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(sign) for sign in text)


def brief(text: str, most: int = MOST_TEXT) -> str:
    """Return a text on one line, printable and no longer than so many characters.

    Args:
        text: of whatever length; only its beginning is looked at.
        most: characters; what is cut off is told by "…" as the last of them.
    """
    line = printable(" ".join(text[: 2 * most].split()))
    if len(line) > most or len(text) > 2 * most:
        return line[: most - 1] + "…"
    return line


def name_of(text: str) -> str:
    """Return what a stranger calls something (a version, a tensor): printable and short."""
    return brief(text, MOST_NAME)


def for_people(message: str, most: int | None = MOST_LINE) -> str:
    """Return what is about to be told on a terminal or in a log.

    The last door: whatever a library, a file or a host has put into a message goes through it.
    Every line is printable, and addresses have no logins: none before the host, no keys and
    signatures behind the ``?``.

    Args:
        message: of any number of lines.
        most: characters that are left of a line; None for all.
    """
    lines = (printable(line[:most]) for line in message.split("\n"))
    return without_logins("\n".join(lines))


def without_logins(text: str) -> str:
    """Return a text whose addresses have no logins; the part of `for_people` that programs want."""
    if "@" in text:
        parts = re.split(r"([\n@])", re.sub(r"\S+", _without_login, text))
        for place, part in enumerate(parts[:-1]):
            last = part.rfind("[") if parts[place + 1] == "@" else len(part)
            found = next((one for one in _SPACED.finditer(part) if one.end() > last), None)
            if found is not None:
                parts[place] = f"{part[: found.end(1)]}…"
        text = _BARE_LOGIN.sub("…@", "".join(parts))
    return _ASKED_WITH.sub(r"\1***", text) if "=" in text else text


def _without_login(word: re.Match[str]) -> str:
    """Leave out what stands before the last ``@`` of an address; a time that grows with it."""
    login, at, rest = word[0].rpartition("@")
    found = _ADDRESS.search(login) if at else None
    return word[0] if found is None else f"{login[: found.end()]}…@{rest}"


def hidden(path: str) -> str:
    """Return the path of an address without what looks like a password in it."""
    return _SECRET.sub(r"\1***", path)


def _shown(sign: str) -> str:
    if sign in "\n\r\t":
        return " "
    if sign in _JOINERS or unicodedata.category(sign) not in _HIDDEN:
        return sign
    code = ord(sign)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
