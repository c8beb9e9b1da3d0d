"""URLs as AI Network judges them: which may be a function's, which may be on a whitelist, and which the whitelist covers."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Any, Final

from openresource.ledger.rules.text import units

URL_CHARACTERS_MAX: Final = 10_000
PORT_MAX: Final = 65_535

_SPECIAL: Final = frozenset(("http", "https", "ws", "wss", "ftp", "file"))
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_WHITE_SPACE: Final = re.compile(r"[\s\ufeff]")

_OCTET: Final = r"(?:1?[0-9]{1,2}|2[0-4][0-9]|25[0-5])"
_PUBLIC_ADDRESS: Final = (
    r"(?!(?:10|127|172)\.|169\.254\.|192\.168\.)"
    rf"(?:[1-9][0-9]?|1[0-9]{{2}}|2[01][0-9]|22[0-3])(?:\.{_OCTET}){{2}}"
    r"\.(?:[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-4])"
)
_PRIVATE_ADDRESS: Final = (
    rf"(?:(?:10|127)(?:\.{_OCTET}){{3}}|(?:169\.254|192\.168)(?:\.{_OCTET}){{2}}"
    rf"|172\.(?:1[6-9]|2[0-9]|3[01])(?:\.{_OCTET}){{2}})"
)
_LETTER: Final = "a-zA-Z\u00a1-\uffff"
_LABEL: Final = f"[{_LETTER}0-9](?:[{_LETTER}0-9-]*+(?<!-))"
_NAME: Final = rf"(?:{_LABEL}\.)++"
_BEHIND: Final = r"(?::[0-9]{2,5})?(?:[/?#].*)?"

_PUBLIC_HOST: Final = re.compile(rf"(?:{_PUBLIC_ADDRESS}|localhost){_BEHIND}", re.IGNORECASE | re.DOTALL)
_PRIVATE_HOST: Final = re.compile(rf"{_PRIVATE_ADDRESS}{_BEHIND}", re.DOTALL)
_HOST_END: Final = re.compile("[@:/?#]")
_PORT_AND_REST: Final = re.compile(_BEHIND, re.DOTALL)
_LABEL_ONLY: Final = re.compile(_LABEL)
_TOP_LEVEL: Final = re.compile(f"[{_LETTER}]{{2,}}")
_WEB_SCHEME: Final = re.compile("(?:https?|ftp)://", re.IGNORECASE)
_ADDRESS_4: Final = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)(?:\.(?!$)|$)){4}")

_CATEGORIES_OUTSIDE_NAMES: Final = frozenset(("Cc", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"))
_FORBIDDEN_IN_HOST: Final = frozenset("\0\t\n\r #/:<>?@[\\]^|")


def is_valid_url(url: Any) -> bool:
    """Whether a URL may be called: a public address, a dotted name, or localhost."""
    return _has_host(url, True)


def is_private_url(url: Any) -> bool:
    """Whether a URL leads to an address of a private network."""
    return _has_host(url, False)


def is_ip_4(text: Any) -> bool:
    """Whether a text is an IPv4 address."""
    return (
        isinstance(text, str) and len(text) <= 15 and "\n" not in text and _ADDRESS_4.match(text) is not None
    )


def is_ip_6(text: Any) -> bool:
    """Whether a text is an IPv6 address."""
    if not isinstance(text, str) or "%" in text or len(text) > 45:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_absolute_url(url: Any) -> bool:
    """Whether a text is an absolute URL as browsers parse one."""
    if not isinstance(url, str) or len(url) > URL_CHARACTERS_MAX:
        return False
    text = re.sub("[\t\n\r]", "", url.strip("".join(map(chr, range(33)))))
    match = _SCHEME.match(text)
    if match is None:
        return False
    scheme = match.group(1).lower()
    rest = text[match.end() :]
    if scheme == "file":
        return _valid_file_host(rest.replace("\\", "/"))
    if scheme in _SPECIAL:
        return _valid_authority(re.split(r"[/?#\\]", rest.lstrip("/\\"), maxsplit=1)[0], True)
    if rest.startswith("//"):
        return _valid_authority(re.split("[/?#]", rest[2:], maxsplit=1)[0], False)
    return True


def is_whitelisted(url: Any, items: list[Any]) -> bool:
    """Whether one of a whitelist's items covers a URL."""
    return isinstance(url, str) and any(isinstance(item, str) and _covers(item, url) for item in items)


def _has_host(url: Any, is_public: bool) -> bool:
    if not isinstance(url, str) or len(url) > URL_CHARACTERS_MAX or _WHITE_SPACE.search(url) is not None:
        return False
    match = _WEB_SCHEME.match(url)
    if match is None:
        return False
    rest = units(url[match.end() :])
    # What stands before any @ may be a user and a password.
    starts = [0] + [
        position + 1 for position, character in enumerate(rest) if character == "@" and position > 0
    ]
    for start in starts:
        if is_public and (_PUBLIC_HOST.fullmatch(rest, start) is not None or _has_dotted_name(rest, start)):
            return True
        if not is_public and _PRIVATE_HOST.fullmatch(rest, start) is not None:
            return True
    return False


def _has_dotted_name(rest: str, start: int) -> bool:
    end = _HOST_END.search(rest, start)
    host = rest[start:] if end is None else rest[start : end.start()]
    if end is not None and _PORT_AND_REST.fullmatch(rest, end.start()) is None:
        return False
    labels = host.removesuffix(".").split(".")
    if len(labels) < 2 or _TOP_LEVEL.fullmatch(labels[-1]) is None:
        return False
    return all(_LABEL_ONLY.fullmatch(label) is not None for label in labels[:-1])


def _valid_file_host(rest: str) -> bool:
    if not rest.startswith("//"):
        return True
    host = re.split("[/?#]", rest[2:], maxsplit=1)[0]
    if not host or re.fullmatch("[A-Za-z][:|]", host) is not None:
        return True
    if host.startswith("["):
        return host.endswith("]") and is_ip_6(host[1:-1])
    return _valid_domain(host)


def _valid_authority(authority: str, is_special: bool) -> bool:
    credentials, at, host_and_port = authority.rpartition("@")
    if at and not host_and_port:
        return False
    host, port = _split_port(host_and_port)
    if port is not None:
        if not host or (port and (not port.isascii() or not port.isdigit() or int(port[:10]) > PORT_MAX)):
            return False
        if len(port.lstrip("0")) > 5:
            return False
    if not host:
        return not is_special and not credentials
    if host.startswith("["):
        return host.endswith("]") and is_ip_6(host[1:-1])
    if is_special:
        return _valid_domain(host)
    return not any(character in _FORBIDDEN_IN_HOST for character in host)


def _split_port(text: str) -> tuple[str, str | None]:
    """The host and, if there is a colon behind it, the port."""
    at = text.find(":", text.find("]") + 1)
    return (text, None) if at < 0 else (text[:at], text[at + 1 :])


def _valid_domain(host: str) -> bool:
    decoded = _percent_decoded(host)
    name = unicodedata.normalize("NFKC", decoded).lower() if not decoded.isascii() else decoded.lower()
    name = name.replace("\u3002", ".").replace("\u00ad", "")
    if not name:
        return False
    for character in name:
        if character in _FORBIDDEN_IN_HOST or character < "!" or character in "%\x7f":
            return False
        if not _may_be_in_name(character):
            return False
    for label in name.split("."):
        if label.startswith("xn--") and not _is_punycode(label[4:]):
            return False
    return not _ends_in_number(name) or _is_browser_address(name)


def _may_be_in_name(character: str) -> bool:
    return character <= "\x7f" or unicodedata.category(character) not in _CATEGORIES_OUTSIDE_NAMES


def _percent_decoded(host: str) -> str:
    if "%" not in host:
        return host
    raw = re.sub(
        rb"%([0-9a-fA-F]{2})",
        lambda match: bytes((int(match.group(1), 16),)),
        host.encode("utf-8", "replace"),
    )
    return raw.decode("utf-8", "replace")


def _is_punycode(label: str) -> bool:
    try:
        decoded = label.encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return False
    if decoded.isascii() or not all(_may_be_in_name(character) for character in decoded):
        return False
    return unicodedata.normalize("NFKC", decoded).lower() == decoded


def _ends_in_number(name: str) -> bool:
    parts = name.split(".")
    if not parts[-1] and len(parts) > 1:
        parts.pop()
    last = parts[-1]
    if last.isascii() and last.isdigit():
        return True
    return _part_of_address(last) >= 0


def _is_browser_address(name: str) -> bool:
    """IPv4 as browsers read it: up to four numbers, decimal, octal or hexadecimal."""
    parts = name.split(".")
    if not parts[-1] and len(parts) > 1:
        parts.pop()
    if len(parts) > 4:
        return False
    numbers = [_part_of_address(part) for part in parts]
    if any(number < 0 for number in numbers) or any(number > 255 for number in numbers[:-1]):
        return False
    most: int = 256 ** (5 - len(numbers))
    return numbers[-1] < most


def _part_of_address(part: str) -> int:
    """The number that a part of an address is, or -1."""
    if len(part) > 40:
        return -1 if re.fullmatch("[0-9]+|0x[0-9a-f]+", part) is None else 1 << 40
    if re.fullmatch("0x[0-9a-f]*", part):
        return int(part[2:] or "0", 16)
    if re.fullmatch("0[0-7]*", part):
        return int(part, 8)
    return int(part) if re.fullmatch("[1-9][0-9]*", part) else -1


def _covers(item: str, url: str) -> bool:
    item_scheme, item_host, item_port = _pieces(item)
    scheme, host, port = _pieces(url)
    if item_scheme and scheme and item_scheme != scheme:
        return False
    if item_port and item_port != port:
        return False
    return _glob(_host_pattern(item_host), host)


def _pieces(url: str) -> tuple[str, str, str]:
    """Scheme, host and port; empty where there is none."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    host, _, port = rest.partition("/")[0].partition(":")
    return scheme, host, port


def _host_pattern(item: str) -> list[str]:
    """Pieces of text; between two of them anything may stand. An empty text with "." asks for one character at least."""
    lead = item.startswith("*.")
    body = item[1:] if lead else item
    trail = body.endswith(".*") and len(body) > 1
    if trail:
        body = body[:-1]
    pieces = body.split(".*")
    return [*(["", "?"] if lead else []), *pieces, *(["?", ""] if trail else [])]


def _glob(pieces: list[str], text: str) -> bool:
    """Whether a text is made of the pieces with anything between them; "?" is any one character."""
    if len(pieces) == 1:
        return text == pieces[0]
    is_led = pieces[0] == "" and pieces[1] == "?"
    is_trailed = pieces[-1] == "" and pieces[-2] == "?"
    middle = pieces[2:] if is_led else pieces
    middle = middle[:-2] if is_trailed else middle
    at = 1 if is_led else 0
    end = len(text) - (1 if is_trailed else 0)
    if not is_led:
        if not text.startswith(middle[0]):
            return False
        at = len(middle[0])
        middle = middle[1:]
    last = ""
    if not is_trailed and middle:
        last = middle[-1]
        middle = middle[:-1]
        if not text.endswith(last):
            return False
        end = len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, max(at, end))
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end and (is_trailed or bool(last) or is_led or at <= end)
