"""Which package registries builds may reach: the ones that this machine's own clients use, never with their credentials.

The operator's settings of pip, npm, go, cargo and Maven are read for addresses alone; without any the public
registries are meant. A name and a password in an address are dropped.
"""

from __future__ import annotations

import configparser
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree

SETTINGS_BYTES_MAX: Final = 1 << 20
ADDRESSES_MAX: Final = 16
PUBLIC: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    # Addresses of the registry, and the further hosts to which it sends its clients.
    "python": (("https://pypi.org/simple",), ("files.pythonhosted.org:443",)),
    "node": (("https://registry.npmjs.org/",), ()),
    "go": (("https://proxy.golang.org",), ("sum.golang.org:443",)),
    "rust": (("https://index.crates.io/",), ("static.crates.io:443", "crates.io:443")),
    "java": (("https://repo.maven.apache.org/maven2",), ("repo1.maven.org:443",)),
}


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry as builds see it: addresses without credentials, hosts that the proxy lets through."""

    language: str
    addresses: tuple[str, ...]
    hosts: tuple[str, ...]
    # An operator's own registry may well stand in a private network.
    private_hosts: tuple[str, ...] = ()


def find_registry(language: str, environment: Mapping[str, str] = os.environ) -> Registry:
    """The registry of a language, from this machine's settings or the public one."""
    home = Path(environment.get("HOME") or "/nonexistent")
    readers = {"python": _python, "node": _node, "go": _go, "rust": _rust, "java": _java}
    found = readers[language](environment, home)
    configured = tuple(dict.fromkeys(filter(None, map(_clean, found))))[:ADDRESSES_MAX]
    addresses, further = PUBLIC[language]
    if not configured or configured == addresses:
        return Registry(language, addresses, tuple(dict.fromkeys((*map(host_of, addresses), *further))))
    hosts = tuple(dict.fromkeys(map(host_of, configured)))
    own = tuple(host.rpartition(":")[0] for host in hosts)
    # A mirror in front of the public registry often sends its clients on to where the files are.
    if set(configured) & set(addresses):
        hosts = tuple(dict.fromkeys((*hosts, *further)))
    return Registry(language, configured, hosts, own)


def host_of(address: str) -> str:
    """`host:port` of an address."""
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    return f"{parts.hostname}:{port}"


def _clean(address: str) -> str:
    """An address without name and password; empty if it is none that a proxy can carry."""
    text = address.strip().removeprefix("sparse+")
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return urlunsplit((parts.scheme, parts.hostname + port, parts.path, "", ""))


def _python(environment: Mapping[str, str], home: Path) -> list[str]:
    named = [environment.get(name, "") for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")]
    extra = [*environment.get("PIP_EXTRA_INDEX_URL", "").split(), *environment.get("UV_INDEX", "").split()]
    first = next(filter(None, named), "")
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    if environment.get("PIP_CONFIG_FILE"):
        files.append(Path(environment["PIP_CONFIG_FILE"]))
    for file in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_read(file))
        except configparser.Error:
            continue
        for section in ("global", "install"):
            first = first or parser.get(section, "index-url", fallback="")
            extra += parser.get(section, "extra-index-url", fallback="").split()
    if extra and not first:
        first = PUBLIC["python"][0][0]
    return [first, *extra] if first else []


def _node(environment: Mapping[str, str], home: Path) -> list[str]:
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if environment.get(name):
            return [environment[name]]
    match = re.search(r"(?m)^[ \t]*registry[ \t]*=[ \t]*(\S{1,500})", _read(home / ".npmrc"))
    return [match[1].strip("\"'")] if match else []


def _go(environment: Mapping[str, str], home: Path) -> list[str]:
    text = environment.get("GOPROXY", "")
    if not text:
        match = re.search(r"(?m)^GOPROXY=(\S{1,2000})", _read(home / ".config/go/env"))
        text = match[1] if match else ""
    return [part for part in re.split("[,|]", text) if part not in ("direct", "off", "")]


def _rust(environment: Mapping[str, str], home: Path) -> list[str]:
    folder = Path(environment.get("CARGO_HOME") or home / ".cargo")
    settings: dict[str, Any] = {}
    for name in ("config.toml", "config"):
        try:
            settings = tomllib.loads(_read(folder / name))
        except (ValueError, RecursionError):
            settings = {}
        if settings:
            break
    sources = settings.get("source")
    if not isinstance(sources, dict):
        return []
    name, seen = "crates-io", 0
    while seen < ADDRESSES_MAX:
        source = sources.get(name)
        if not isinstance(source, dict):
            return []
        following = source.get("replace-with")
        if not isinstance(following, str):
            registry = source.get("registry")
            return [registry] if isinstance(registry, str) else []
        name, seen = following, seen + 1
    return []


def _java(environment: Mapping[str, str], home: Path) -> list[str]:
    text = _read(home / ".m2/settings.xml")
    # Our own operator's file, and yet: no document type, so nothing in it can grow.
    if not text or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return []
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return []
    return [
        element.text or ""
        for mirror in root.iter()
        if mirror.tag.rpartition("}")[2] == "mirror"
        for element in mirror
        if element.tag.rpartition("}")[2] == "url"
    ]


def _read(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            return opened.read(SETTINGS_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
