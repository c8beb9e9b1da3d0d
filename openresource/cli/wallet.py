"""`wallet`: create, show, encrypt, export a wallet; send coins. A private key never reaches the screen."""

import json
import os
import sys
from pathlib import Path

import click

from openresource.cli.output import dry_run_option, home_option, json_option, network_node_option, show
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home, HomeUnwritable, keystore_chance
from openresource.primitives.amounts import ain_number, text_from_uain, uain_from_text
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.keys import checksum_address, is_address


class FileExists(Refusal):
    template = "{file} exists already."
    way_out = "Name another file; nothing is overwritten."


class PassphraseMissing(Refusal):
    template = "A passphrase is needed and there is no terminal to ask on."
    way_out = "Put it into a file and name that file in OPENRESOURCE_PASSPHRASE_FILE."


@click.group(
    epilog="\b\nExample:  openresource wallet new\n          openresource wallet send 0xAb…12 0.5",
)
def wallet() -> None:
    """Create, show, encrypt and export a wallet; send coins."""


@wallet.command(epilog="\b\nExample:  openresource wallet new --home ./alice")
@home_option
@json_option
def new(home: str | None, as_json: bool) -> None:
    """Create a wallet in this home; an existing one is never overwritten."""
    place = Home(home)
    key = place.create_wallet()
    show(
        {"address": key.address, "file": str(place.wallet_file)},
        as_json=as_json,
        text=f"Wallet {key.address}\nkept in {place.wallet_file} (only you can read it).\n"
        "Make a copy that survives this machine:  openresource wallet export my-wallet.json",
    )


@wallet.command("show", epilog="\b\nExample:  openresource wallet show --json")
@home_option
@network_node_option
@json_option
def show_wallet(home: str | None, node_url: str | None, as_json: bool) -> None:
    """Show the address and what it holds."""
    place = Home(home)
    address = place.address()

    async def balance() -> int:
        async with chain_of(place, node_url) as chain:
            return await chain.balance(address)

    held = run(balance())
    show(
        {
            "address": address,
            "balance_uain": held,
            "balance": text_from_uain(held),
            "encrypted": place.is_encrypted(),
        },
        as_json=as_json,
        text=f"{address}\n{text_from_uain(held)} AIN"
        + ("" if place.is_encrypted() else "\nThe key file is not encrypted: openresource wallet encrypt"),
    )


@wallet.command(epilog="\b\nExample:  openresource wallet send 0xAb…12 0.5 --dry-run")
@click.argument("address")
@click.argument("amount")
@home_option
@network_node_option
@dry_run_option
@json_option
def send(
    address: str, amount: str, home: str | None, node_url: str | None, dry_run: bool, as_json: bool
) -> None:
    """Send AMOUNT of AIN to ADDRESS; ends when the transfer is final."""
    if not is_address(address):
        raise InvalidInput(f"{address} is not an address.", remedy="An address is 0x and 40 hex digits.")
    target = checksum_address(address)
    amount_uain = uain_from_text(amount)
    place = Home(home)
    sender = place.address()

    async def transfer() -> dict[str, object]:
        async with chain_of(place, node_url) as chain:
            held = await chain.balance(sender)
            plan: dict[str, object] = {
                "from": sender,
                "to": target,
                "amount_uain": amount_uain,
                "balance_uain": held,
                "dry_run": dry_run,
            }
            if dry_run:
                return plan
            record = os.urandom(16).hex()
            path = f"/transfer/{sender}/{target}/{record}/value"
            return {**plan, "tx_hash": await chain.write(path, ain_number(amount_uain), key_of(place))}

    outcome = run(transfer())
    sent = "Would send" if dry_run else "Sent"
    show(outcome, as_json=as_json, text=f"{sent} {text_from_uain(amount_uain)} AIN to {target}.")


@wallet.command(epilog="\b\nExample:  openresource wallet encrypt")
@home_option
@json_option
def encrypt(home: str | None, as_json: bool) -> None:
    """Encrypt the key file with a passphrase (AI Network's keystore format)."""
    place = Home(home)
    address = place.address()
    if not place.is_encrypted():
        place.encrypt_wallet(_new_passphrase(place))
    show({"address": address, "encrypted": True}, as_json=as_json, text=f"The key of {address} is encrypted.")


@wallet.command(epilog="\b\nExample:  openresource wallet export my-wallet.json")
@click.argument("file", type=click.Path(dir_okay=False))
@home_option
@json_option
def export(file: str, home: str | None, as_json: bool) -> None:
    """Write an encrypted copy of the wallet to FILE (a keystore; never to the screen)."""
    from openresource.primitives.keystore import encrypt_key

    place = Home(home)
    target = Path(file)
    if target.exists():
        raise FileExists(file=str(target))
    key = key_of(place)
    record = encrypt_key(key, _new_passphrase(place), **keystore_chance())
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump(record, out)
    except OSError as error:
        raise HomeUnwritable(home=str(target.parent), reason=error.strerror or str(error)) from None
    show(
        {"address": key.address, "file": str(target)},
        as_json=as_json,
        text=f"{key.address} is kept, encrypted, in {target}.",
    )


def _new_passphrase(home: Home) -> str:
    from_file = home.passphrase_from_file()
    if from_file:
        return from_file
    if not sys.stdin.isatty():
        raise PassphraseMissing()
    phrase: str = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return phrase
