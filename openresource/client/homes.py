"""A home: the folder with one person's or machine's wallet, settings and books.

Files with secrets have mode 0600 and are written whole or not at all. A lock belongs to a process and dies with it.
"""

import fcntl
import json
import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from openresource.primitives.amounts import text_from_uain, uain_from_text
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, generate_key, private_key_from_hex

DEFAULT_HOME = "~/.openresource"
DEFAULT_NODE = "http://127.0.0.1:8080"
HOME_VARIABLE = "OPENRESOURCE_HOME"
NODE_VARIABLE = "OPENRESOURCE_NODE"
PASSPHRASE_FILE_VARIABLE = "OPENRESOURCE_PASSPHRASE_FILE"
SETTINGS_BYTES_MAX = 64 * 1024
WALLET = "wallet.json"
LIMITS = "limits.json"
CONFIG = "config.toml"
LOCKS = "locks"


class NoWallet(Refusal):
    template = "There is no wallet in {home}."
    way_out = "Create one: openresource wallet new --home {home}"


class WalletExists(Refusal):
    template = "{home} already holds the wallet {address}."
    way_out = (
        "Choose another home with --home, or move that wallet away first; a wallet is never overwritten."
    )


class WalletUnreadable(Refusal):
    template = "The wallet file {file} cannot be read: {reason}."
    way_out = "Restore it from your copy; nothing else holds this key."


class WalletLocked(Refusal):
    template = "The wallet {file} is encrypted and no passphrase was given."
    way_out = "Put the passphrase into a file and name it in OPENRESOURCE_PASSPHRASE_FILE, or run the command on a terminal."


class HomeInUse(Refusal):
    template = "{home} is in use by another process (its {name} is running, process {process})."
    way_out = "Stop that process, or choose another home with --home."


class HomeUnwritable(Refusal):
    template = "{home} cannot be written: {reason}."
    way_out = "Choose another home with --home, or make room there."


class BadSettings(Refusal):
    template = "{file} cannot be understood: {reason}."
    way_out = "Correct the file, or remove it to return to the defaults."


@dataclass(frozen=True, slots=True)
class Limits:
    """What this home's wallet may spend, in µAIN."""

    per_call_uain: int = 100_000
    per_day_uain: int = 5_000_000
    channel_deposit_uain: int = 1_000_000


class Lock:
    """A lock on a name within a home, held until closed or until the process ends; its file goes with it."""

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / f"{name}.lock"
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._file, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(self._file)
                raise HomeInUse(home=str(home), name=name, process=holder) from None
            if self._is_in_place():
                break
            # Its holder took the file away between our opening and our lock: a lock on it would keep nobody out.
            os.close(self._file)
        os.ftruncate(self._file, 0)
        os.write(self._file, str(os.getpid()).encode())

    def close(self) -> None:
        """Give the lock back; twice does no harm."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Home:
    """The folder of one wallet: its key, its settings, its spending limits."""

    def __init__(self, folder: str | Path | None = None) -> None:
        chosen = folder or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME
        self.folder = Path(chosen).expanduser()

    def __repr__(self) -> str:
        return f"Home({str(self.folder)!r})"

    def ensure(self) -> Path:
        """Make the folder, readable by its owner only."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HomeUnwritable(home=str(self.folder), reason=error.strerror or str(error)) from None
        return self.folder

    def lock(self, name: str) -> Lock:
        """Take a named lock, or say which process has it."""
        return Lock(self.ensure(), name)

    def channel_lock(self, channel_id: str) -> Lock:
        """Take the lock on a payment channel, so that two processes never sign over each other."""
        folder = self.ensure() / LOCKS
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeUnwritable(home=str(self.folder), reason=error.strerror or str(error)) from None
        return Lock(folder, f"channel-{channel_id}")

    # The wallet

    @property
    def wallet_file(self) -> Path:
        """Where the key is kept."""
        return self.folder / WALLET

    def has_wallet(self) -> bool:
        """Whether a key file exists; it may be encrypted."""
        return self.wallet_file.is_file()

    def address(self) -> str:
        """The wallet's address; needs no passphrase."""
        from openresource.primitives.keys import checksum_address

        record = self._wallet_record()
        address = str(record.get("address", ""))
        return checksum_address(address if address.startswith("0x") else "0x" + address)

    def is_encrypted(self) -> bool:
        """Whether the key file needs a passphrase."""
        return "crypto" in self._wallet_record()

    def wallet(self, passphrase: str | None = None) -> PrivateKey:
        """The key itself. An encrypted file needs a passphrase, else the one in OPENRESOURCE_PASSPHRASE_FILE."""
        record = self._wallet_record()
        if "crypto" in record:
            from openresource.primitives.keystore import decrypt_key

            phrase = passphrase if passphrase is not None else self.passphrase_from_file()
            if phrase is None:
                raise WalletLocked(file=str(self.wallet_file))
            return decrypt_key(record, phrase)
        try:
            return private_key_from_hex(str(record["private_key"]))
        except (KeyError, Refusal):
            raise WalletUnreadable(file=str(self.wallet_file), reason="it holds no private key") from None

    def passphrase_from_file(self) -> str | None:
        """The first line of the file that OPENRESOURCE_PASSPHRASE_FILE names."""
        name = os.environ.get(PASSPHRASE_FILE_VARIABLE)
        if not name:
            return None
        try:
            with open(name, encoding="utf-8") as file:
                return file.readline(SETTINGS_BYTES_MAX).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise WalletUnreadable(file=name, reason=str(error)) from None

    def create_wallet(self, key: PrivateKey | None = None) -> PrivateKey:
        """Make a new key file, or keep the given key; never over an existing one."""
        self.ensure()
        if self.has_wallet():
            raise WalletExists(home=str(self.folder), address=self.address())
        made = key or generate_key(secrets.token_bytes(32))
        self.write_secret(WALLET, {"address": made.address, "private_key": made.to_bytes().hex()})
        return made

    def encrypt_wallet(self, passphrase: str) -> None:
        """Replace the plain key file by an AI Network keystore."""
        from openresource.primitives.keystore import encrypt_key

        self.write_secret(WALLET, encrypt_key(self.wallet(), passphrase, **keystore_chance()))

    def _wallet_record(self) -> dict[str, Any]:
        if not self.has_wallet():
            raise NoWallet(home=str(self.folder))
        try:
            record = json.loads(self._text(self.wallet_file))
        except (OSError, ValueError) as error:
            raise WalletUnreadable(file=str(self.wallet_file), reason=str(error)) from None
        if not isinstance(record, dict):
            raise WalletUnreadable(file=str(self.wallet_file), reason="it is not a JSON object")
        return record

    # Settings

    def config(self) -> dict[str, Any]:
        """What config.toml says; empty if there is none."""
        path = self.folder / CONFIG
        if not path.exists():
            return {}
        try:
            return tomllib.loads(self._text(path))
        except (OSError, ValueError) as error:
            raise BadSettings(file=str(path), reason=str(error)) from None

    def node_url(self, given: str | None = None) -> str:
        """The node to talk to: what was asked for, else OPENRESOURCE_NODE, else config.toml's, else this machine's."""
        url = str(given or os.environ.get(NODE_VARIABLE) or self.config().get("node") or DEFAULT_NODE).rstrip(
            "/"
        )
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadSettings(file="the node's address", reason=f"{url!r} is not an http or https address")
        return url

    def write_config(self, settings: Mapping[str, str]) -> None:
        """Write config.toml anew."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        self.write_file(CONFIG, "\n".join(lines).encode() + b"\n")

    def limits(self) -> Limits:
        """The spending limits, with defaults for those not set."""
        path = self.folder / LIMITS
        if not path.exists():
            return Limits()
        try:
            record = json.loads(self._text(path))
            default = Limits()
            return Limits(
                per_call_uain=uain_from_text(record.get("per_call", text_from_uain(default.per_call_uain))),
                per_day_uain=uain_from_text(record.get("per_day", text_from_uain(default.per_day_uain))),
                channel_deposit_uain=uain_from_text(
                    record.get("channel_deposit", text_from_uain(default.channel_deposit_uain))
                ),
            )
        except (OSError, ValueError, AttributeError, Refusal) as error:
            raise BadSettings(file=str(path), reason=str(error)) from None

    def write_limits(self, limits: Limits) -> None:
        """Keep the spending limits, as texts of AIN."""
        record = {
            "per_call": text_from_uain(limits.per_call_uain),
            "per_day": text_from_uain(limits.per_day_uain),
            "channel_deposit": text_from_uain(limits.channel_deposit_uain),
        }
        self.write_file(LIMITS, json.dumps(record, indent=2).encode() + b"\n")

    # Files

    def write_secret(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a JSON file that only its owner may read."""
        self.write_file(name, json.dumps(dict(record)).encode() + b"\n")

    def write_file(self, name: str, content: bytes) -> None:
        """Replace a file of this home whole, mode 0600, on the disk before this returns."""
        self.ensure()
        fresh = self.folder / f".{name}.{secrets.token_hex(4)}"
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.folder / name)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise HomeUnwritable(home=str(self.folder), reason=error.strerror or str(error)) from None

    def _text(self, path: Path) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read(SETTINGS_BYTES_MAX)


def keystore_chance() -> dict[str, Any]:
    """Fresh random parts of a keystore file."""
    import uuid

    return {"salt": secrets.token_bytes(32), "iv": secrets.token_bytes(16), "identifier": str(uuid.uuid4())}
