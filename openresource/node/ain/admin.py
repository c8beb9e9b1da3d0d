"""What only the owner of the node's account may do: see and change parameters, and inject the account itself.

Requests are signed messages that name the method and are at most ten minutes old. Secrets are never shown, not even to
the owner: they say only that they are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from openresource.ledger.operations import js_text
from openresource.node.ain.parameters import WILDCARD, changed, hidden
from openresource.node.ain.served import ServedNode
from openresource.node.rpc import Answer, Params, answer, refused
from openresource.primitives.encoding import canonical_json, js_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, generate_key, private_key_from_hex, verify_signature
from openresource.primitives.keystore import decrypt_key
from openresource.primitives.mnemonic import key_from_mnemonic
from openresource.primitives.numbers import is_integer, is_number
from openresource.primitives.sealing import CannotUnseal, unseal

FORBIDDEN: Final = 30501
PARAM_INVALID: Final = 30502
VALUE_NOT_TEXT: Final = 30503
ALREADY_LISTED: Final = 30504
NOT_LISTED: Final = 30505
MESSAGE_AGE_MAX_MS: Final = 10 * 60 * 1000
WHITELIST_ITEMS_MAX: Final = 10_000

GET: Final = "ain_getNodeParam"
SET: Final = "ain_setNodeParam"
ADD: Final = "ain_addToWhitelistNodeParam"
REMOVE: Final = "ain_removeFromWhitelistNodeParam"


class Administration:
    """The administrative methods of one node."""

    def __init__(self, node: ServedNode) -> None:
        self._node = node

    def methods(self) -> dict[str, Callable[[Params], Answer]]:
        """Every method by its name on the wire."""
        return {
            GET: lambda params: self._guarded(params, GET, self._get),
            SET: lambda params: self._guarded(params, SET, self._set),
            ADD: lambda params: self._guarded(params, ADD, self._add),
            REMOVE: lambda params: self._guarded(params, REMOVE, self._remove),
        }

    def _guarded(self, params: Params, method: str, act: Callable[[str, Any], Answer]) -> Answer:
        message = params.get("message")
        if (
            not isinstance(message, dict)
            or message.get("method") != method
            or not self._is_signed(message, params.get("signature"))
        ):
            return refused(FORBIDDEN, "Forbidden request.", False)
        name = message.get("param")
        if name not in self._node.parameters:
            return refused(PARAM_INVALID, f"Param [{_shown(message, 'param')}] does not exist.", False)
        assert isinstance(name, str), "only texts are names of parameters"
        return act(name, message)

    def _is_signed(self, message: dict[str, Any], signature: object) -> bool:
        key = self._node.key
        timestamp: Any = message.get("timestamp")
        if key is None or not isinstance(signature, str) or not is_number(timestamp):
            return False
        # One that is dated ahead could be shown again for as long as that.
        if abs(timestamp - self._node.now_ms()) > MESSAGE_AGE_MAX_MS:
            return False
        chain_id = self._node.chain.network.chain_id
        try:
            return verify_signature(canonical_json(message), signature, key.address, chain_id)
        except Refusal:
            return False

    def _get(self, name: str, message: Any) -> Answer:
        return answer(hidden(name, self._node.parameters.get(name)))

    def _set(self, name: str, message: Any) -> Answer:
        value = message.get("value")
        if not isinstance(value, str):
            return _not_text(message)
        parameters = self._node.parameters
        parameters.set(name, changed(parameters.get(name), value))
        return self._done(f"Param [{name}] is now set as: {self._json(name)}")

    def _add(self, name: str, message: Any) -> Answer:
        parameters = self._node.parameters
        now, value = parameters.get(name), message.get("value")
        if not isinstance(now, list) and now != WILDCARD:
            return refused(PARAM_INVALID, f"Param [{name}] is not a whitelist", False)
        if not isinstance(value, str):
            return _not_text(message)
        # Whoever adds a name to a list that lets everybody in means only that name.
        listed = list(now) if isinstance(now, list) else []
        if value in listed or len(listed) >= WHITELIST_ITEMS_MAX:
            parameters.set(name, listed)
            problem = f"({value}) already in whitelist [{name}]: {self._json(name)}"
            return refused(ALREADY_LISTED, problem, False)
        parameters.set(name, WILDCARD if value == WILDCARD else [*listed, value])
        return self._done(f"Added ({value}) to whitelist [{name}]: {self._json(name)}")

    def _remove(self, name: str, message: Any) -> Answer:
        parameters = self._node.parameters
        now, value = parameters.get(name), message.get("value")
        if not isinstance(now, list) and now != WILDCARD:
            return refused(PARAM_INVALID, f"Param [{name}] is not a whitelist", False)
        if not isinstance(value, str):
            return _not_text(message)
        if value == WILDCARD:
            parameters.set(name, [])
        elif not isinstance(now, list) or value not in now:
            return refused(NOT_LISTED, f"({value}) not in whitelist [{name}]: {self._json(name)}", False)
        else:
            parameters.set(name, [one for one in now if one != value])
        return self._done(f"Removed ({value}) from whitelist [{name}]: {self._json(name)}")

    def _json(self, name: str) -> str:
        return js_json(hidden(name, self._node.parameters.get(name)))

    def _done(self, message: str) -> Answer:
        return {"result": True, "code": 0, "message": message}


class Injection:
    """The account of a node that was started without one: it comes encrypted to a key of this run."""

    def __init__(self, node: ServedNode) -> None:
        self._node = node
        self._bootstrap: PrivateKey | None = None if node.key is not None else generate_key(os.urandom(32))

    def methods(self) -> dict[str, Callable[[Params], Answer]]:
        """Every method by its name on the wire."""
        return {
            "ain_getBootstrapPubKey": lambda params: answer(self._public_key()),
            "ain_injectAccountFromPrivateKey": self._from_private_key,
            "ain_injectAccountFromKeystore": self._from_keystore,
            "ain_injectAccountFromHDWallet": self._from_mnemonic,
        }

    def _public_key(self) -> str | None:
        key = self._bootstrap
        return None if key is None or self._node.key is not None else key.public_key.hex()

    def _from_private_key(self, params: Params) -> Answer:
        return self._inject(lambda: private_key_from_hex(self._opened(params.get("encryptedPrivateKey"))))

    def _from_keystore(self, params: Params) -> Answer:
        return self._inject(
            lambda: decrypt_key(
                self._opened(params.get("encryptedKeystore")), self._opened(params.get("encryptedPassword"))
            )
        )

    def _from_mnemonic(self, params: Params) -> Answer:
        index: Any = params.get("index", 0)
        if not is_integer(index) or not 0 <= index < 2**31:
            return answer(False)
        return self._inject(
            lambda: key_from_mnemonic(self._opened(params.get("encryptedMnemonic")), int(index))
        )

    def _inject(self, key_of: Callable[[], PrivateKey]) -> Answer:
        if self._bootstrap is None or self._node.key is not None:
            return answer(False)
        try:
            key = key_of()
        except Refusal:
            # Which part did not fit would help only those who guess.
            return answer(False)
        if not self._node.inject(key):
            return answer(False)
        self._bootstrap = None
        return answer(True)

    def _opened(self, sealed: Any) -> str:
        assert self._bootstrap is not None, "only a node without an account opens anything"
        if not isinstance(sealed, dict):
            raise CannotUnseal()
        try:
            return unseal(sealed, self._bootstrap).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CannotUnseal() from error


def _not_text(message: dict[str, Any]) -> Answer:
    return refused(VALUE_NOT_TEXT, f"Value '{_shown(message, 'value')}' is not a string.", False)


def _shown(message: dict[str, Any], name: str) -> str:
    return js_text(message[name]) if name in message else "undefined"
