"""The members of `util`, which rules use to test values and to look at accounts, apps and the consensus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from openresource.ledger.rules.environment import Environment
from openresource.ledger.rules.errors import RuleThrow
from openresource.ledger.rules.globals import GET_VALUE
from openresource.ledger.rules.members import INHERITED_NAMES
from openresource.ledger.rules.meter import Meter
from openresource.ledger.rules.text import units
from openresource.ledger.rules.values import (
    UNDEFINED,
    Function,
    array_items,
    call,
    is_dict,
    is_number,
    keys_of,
    own_member,
    same_value_zero,
    to_boolean,
    to_number,
    to_string,
)
from openresource.ledger.urls import is_absolute_url, is_ip_4, is_ip_6, is_private_url, is_valid_url
from openresource.primitives.errors import Refusal
from openresource.primitives.hashing import is_hex_text
from openresource.primitives.keys import checksum_address, is_address, is_checksum_address
from openresource.primitives.numbers import (
    count_decimals,
    is_decimal_text,
    is_finite,
    is_integer,
    is_integer_text,
)
from openresource.primitives.paths import balance_path, is_service_account, service_account_name

HASH_CHARACTERS: Final = 66
OFFENSE_TYPES: Final = frozenset(("INVALID_PROPOSAL",))
SHARDING_PROTOCOLS: Final = frozenset(("NONE", "POA"))

UTIL: Final[dict[str, Function]] = {}

Body = Callable[[Any, object, list[object]], object]


def member(name: str, arity: int) -> Callable[[Body], Body]:
    """Registers a function as a member of util."""

    def register(body: Body) -> Body:
        UTIL[name] = Function(name, arity, body)
        return body

    return register


class Reader:
    """The getValue that a rule hands to a member, with what members ask of it."""

    __slots__ = ("_function", "_meter")

    def __init__(self, function: object, meter: Environment) -> None:
        self._function: object = function
        self._meter: Environment = meter

    def get(self, path: str) -> object:
        """The value at a path."""
        function = self._function
        if function is GET_VALUE:
            return self._meter.read("values", path)
        if not isinstance(function, Function):
            raise RuleThrow("getValue is not a function")
        return call(function, self._meter, UNDEFINED, [path])

    def is_true(self, path: str) -> bool:
        """Whether exactly true stands at a path."""
        return self.get(path) is True

    def number(self, path: str) -> object:
        """The value at a path, 0 if there is nothing to speak of."""
        value = self.get(path)
        return value if to_boolean(value) else 0

    def parameter(self, category: str, name: str) -> object:
        """A parameter of the chain."""
        return self.get(f"/blockchain_params/{category}/{name}")


def text_of(value: object, meter: Meter) -> str:
    """A value as a part of a path."""
    return value if isinstance(value, str) else to_string(value, meter)


def is_at_most(one: object, other: object) -> bool:
    """Whether both are numbers and the first is not the greater."""
    return isinstance(one, (int, float)) and isinstance(other, (int, float)) and one <= other


def is_finite_number(value: object) -> bool:
    """Whether a value is a number, and finite."""
    return is_finite(value)


def values_of(value: object) -> list[object]:
    """The values of an object's members."""
    return [own_member(value, key) for key in keys_of(value)] if is_dict(value) else []


# Types


@member("isBool", 1)
def _is_bool(meter: Meter, this: object, arguments: list[object]) -> object:
    return isinstance(arguments[0], bool)


@member("isString", 1)
def _is_string(meter: Meter, this: object, arguments: list[object]) -> object:
    return isinstance(arguments[0], str)


@member("isArray", 1)
def _is_array(meter: Meter, this: object, arguments: list[object]) -> object:
    return array_items(arguments[0]) is not None


@member("isNumber", 1)
def _is_number(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_finite(arguments[0])


@member("isInteger", 1)
def _is_integer(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_integer(arguments[0])


@member("isDict", 1)
def _is_dict(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_dict(arguments[0])


@member("isEmpty", 1)
def _is_empty(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    if value is None or value is UNDEFINED:
        return True
    items = array_items(value)
    if items is not None:
        return not items
    return is_dict(value) and not keys_of(value)


@member("isIntegerString", 1)
def _is_integer_string(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    return isinstance(value, str) and is_integer_text(value)


@member("isFloatString", 1)
def _is_float_string(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    return isinstance(value, str) and is_decimal_text(value)


@member("isHexString", 1)
def _is_hex_string(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_hex_text(arguments[0])


def is_valid_hash(value: object) -> bool:
    """Whether a value is 0x and 64 hex digits of any case."""
    return isinstance(value, str) and len(value) == HASH_CHARACTERS and is_hex_text(value)


@member("isValidHash", 1)
def _is_valid_hash(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_valid_hash(arguments[0])


# Objects and arrays


@member("keys", 1)
def _keys(meter: Meter, this: object, arguments: list[object]) -> object:
    keys: list[object] = list(keys_of(arguments[0])) if is_dict(arguments[0]) else []
    meter.spend_items(len(keys))
    return keys


@member("values", 1)
def _values(meter: Meter, this: object, arguments: list[object]) -> object:
    values = values_of(arguments[0])
    meter.spend_items(len(values))
    return values


@member("length", 1)
def _length(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    if isinstance(value, str):
        return len(units(value))
    items = array_items(value)
    if items is not None:
        return len(items)
    return len(keys_of(value)) if is_dict(value) else 0


@member("includes", 2)
def _includes(meter: Meter, this: object, arguments: list[object]) -> object:
    items = array_items(arguments[0])
    if items is None:
        return False
    meter.spend_items(len(items))
    return any(same_value_zero(item, arguments[1]) for item in items)


# Addresses and accounts


@member("isValAddr", 1)
def _is_val_addr(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_address(arguments[0])


@member("isCksumAddr", 1)
def _is_cksum_addr(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_checksum_address(arguments[0])


@member("toCksumAddr", 1)
def _to_cksum_addr(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    return checksum_address(value) if isinstance(value, str) and is_address(value) else ""


@member("areSameAddrs", 2)
def _are_same_addrs(meter: Meter, this: object, arguments: list[object]) -> object:
    one, other = arguments[0], arguments[1]
    if not isinstance(one, str) or not isinstance(other, str):
        raise RuleThrow("not an address")
    try:
        return checksum_address(one) == checksum_address(other)
    except Refusal as error:
        raise RuleThrow("not an address") from error


@member("isServAcntName", 2)
def _is_serv_acnt_name(environment: Environment, this: object, arguments: list[object]) -> object:
    number = arguments[1]
    first = environment.context.lower_case_names_from
    is_lower_only = (
        first is not None
        and isinstance(number, (int, float))
        and not isinstance(number, bool)
        and number >= first
    )
    return is_service_account(arguments[0], is_lower_only)


def account_parts(name: object) -> list[object]:
    """Type, service and key of a service account's name; null for what is missing."""
    if not isinstance(name, str):
        return [None, None, None]
    parts = name.split("|", 2)
    found: list[object] = list(parts)
    return found + [None] * (3 - len(parts))


@member("parseServAcntName", 1)
def _parse_serv_acnt_name(meter: Meter, this: object, arguments: list[object]) -> object:
    return account_parts(arguments[0])


@member("getServiceNameFromServAcntName", 1)
def _service_of_account(meter: Meter, this: object, arguments: list[object]) -> object:
    return account_parts(arguments[0])[1]


@member("toServiceAccountName", 3)
def _to_service_account_name(meter: Meter, this: object, arguments: list[object]) -> object:
    parts = [text_of(argument, meter) for argument in arguments]
    return service_account_name(parts[0], parts[1], parts[2])


@member("toEscrowAccountName", 3)
def _to_escrow_account_name(meter: Meter, this: object, arguments: list[object]) -> object:
    return ":".join([text_of(argument, meter) for argument in arguments[:3]])


def balance_path_of(name: object, meter: Meter) -> str:
    """Where the balance of an account is."""
    return balance_path(text_of(name, meter))


@member("getBalancePath", 1)
def _get_balance_path(meter: Meter, this: object, arguments: list[object]) -> object:
    return balance_path_of(arguments[0], meter)


@member("getBalance", 2)
def _get_balance(environment: Environment, this: object, arguments: list[object]) -> object:
    return Reader(arguments[1], environment).number(balance_path_of(arguments[0], environment))


# Conversions


@member("boolOrFalse", 1)
def _bool_or_false(meter: Meter, this: object, arguments: list[object]) -> object:
    return arguments[0] if isinstance(arguments[0], bool) else False


@member("numberOrZero", 1)
def _number_or_zero(meter: Meter, this: object, arguments: list[object]) -> object:
    return arguments[0] if is_finite(arguments[0]) else 0


@member("stringOrEmpty", 1)
def _string_or_empty(meter: Meter, this: object, arguments: list[object]) -> object:
    return arguments[0] if isinstance(arguments[0], str) else ""


@member("countDecimals", 1)
def _count_decimals(meter: Meter, this: object, arguments: list[object]) -> object:
    value = arguments[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return count_decimals(value) if is_finite(value) else 0
    if value is None or value is UNDEFINED:
        raise RuleThrow("Cannot read properties of null or undefined (reading 'toString')")
    _, _, fraction = to_string(value, meter).partition(".")
    return len(fraction)


@member("toBool", 1)
def _to_bool(meter: Meter, this: object, arguments: list[object]) -> object:
    return arguments[0] if isinstance(arguments[0], bool) else arguments[0] == "true"


@member("toNumberOrNaN", 1)
def _to_number_or_nan(meter: Meter, this: object, arguments: list[object]) -> object:
    return arguments[0] if is_number(arguments[0]) else to_number(arguments[0], meter)


# Names and URLs


@member("isValShardProto", 1)
def _is_val_shard_proto(meter: Meter, this: object, arguments: list[object]) -> object:
    return isinstance(arguments[0], str) and arguments[0] in SHARDING_PROTOCOLS


def is_offense_type(value: object) -> bool:
    """Whether a value names an offence; the names that every object inherits count, as in AI Network's nodes."""
    return isinstance(value, str) and (value in OFFENSE_TYPES or value in INHERITED_NAMES)


@member("isValidatorOffenseType", 1)
def _is_validator_offense_type(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_offense_type(arguments[0])


def _pay_for_text(value: object, meter: Meter) -> None:
    """Reading a URL takes a few steps for each of its characters."""
    if isinstance(value, str):
        meter.spend(len(value))


@member("isValidUrl", 1)
def _is_valid_url(meter: Meter, this: object, arguments: list[object]) -> object:
    _pay_for_text(arguments[0], meter)
    return is_valid_url(arguments[0])


@member("isValidPrivateUrl", 1)
def _is_valid_private_url(meter: Meter, this: object, arguments: list[object]) -> object:
    _pay_for_text(arguments[0], meter)
    return is_private_url(arguments[0])


@member("isValidIpV4", 1)
def _is_valid_ip_4(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_ip_4(arguments[0])


@member("isValidIpV6", 1)
def _is_valid_ip_6(meter: Meter, this: object, arguments: list[object]) -> object:
    return is_ip_6(arguments[0])


@member("isValidUrlWhitelistItem", 1)
def _is_valid_url_whitelist_item(meter: Meter, this: object, arguments: list[object]) -> object:
    _pay_for_text(arguments[0], meter)
    return is_absolute_url(arguments[0])


@member("checkValuePathLen", 2)
def _check_value_path_len(meter: Meter, this: object, arguments: list[object]) -> object:
    items = array_items(arguments[0])
    return items is not None and is_number(arguments[1]) and len(items) == arguments[1]


# Apps


def is_app_admin(app: object, address: object, reader: Reader, meter: Meter) -> bool:
    """Whether an address is an admin of an app."""
    return reader.is_true(f"/manage_app/{text_of(app, meter)}/config/admin/{text_of(address, meter)}")


@member("isAppAdmin", 3)
def _is_app_admin(environment: Environment, this: object, arguments: list[object]) -> object:
    return is_app_admin(arguments[0], arguments[1], Reader(arguments[2], environment), environment)


@member("isAppAdminFromServAcntName", 3)
def _is_app_admin_of_account(environment: Environment, this: object, arguments: list[object]) -> object:
    app = account_parts(arguments[0])[1]
    return is_app_admin(app, arguments[1], Reader(arguments[2], environment), environment)


@member("isBillingUser", 3)
def _is_billing_user(environment: Environment, this: object, arguments: list[object]) -> object:
    parts = [text_of(part, environment) for part in account_parts(arguments[0])]
    address = text_of(arguments[1], environment)
    path = f"/manage_app/{parts[1]}/config/billing/{parts[2]}/users/{address}"
    return Reader(arguments[2], environment).is_true(path)


def is_flags_by_address(value: object) -> bool:
    """Whether a value is an object of checksum addresses and booleans."""
    if not is_dict(value):
        return False
    return all(
        is_checksum_address(key) and isinstance(own_member(value, key), bool) for key in keys_of(value)
    )


@member("validateManageAppAdminConfig", 1)
def _validate_admin_config(meter: Meter, this: object, arguments: list[object]) -> object:
    return bool(keys_of(arguments[0])) and is_flags_by_address(arguments[0])


@member("validateManageAppBillingConfig", 1)
def _validate_billing_config(meter: Meter, this: object, arguments: list[object]) -> object:
    config = arguments[0]
    if not is_dict(config) or not keys_of(config):
        return False
    return all(
        is_dict(entry) and is_flags_by_address(own_member(entry, "users")) for entry in values_of(config)
    )


@member("validateManageAppIsPublicConfig", 1)
def _validate_is_public_config(meter: Meter, this: object, arguments: list[object]) -> object:
    return arguments[0] is None or isinstance(arguments[0], bool)


@member("validateManageAppServiceConfig", 1)
def _validate_service_config(meter: Meter, this: object, arguments: list[object]) -> object:
    config = arguments[0]
    if not is_dict(config) or keys_of(config) != ["staking"]:
        return False
    staking = own_member(config, "staking")
    if not is_dict(staking) or keys_of(staking) != ["lockup_duration"]:
        return False
    duration = own_member(staking, "lockup_duration")
    return is_integer(duration) and isinstance(duration, (int, float)) and duration >= 0


@member("validateRestFunctionsUrlWhitelistData", 4)
def _validate_url_whitelist(environment: Environment, this: object, arguments: list[object]) -> object:
    reader = Reader(arguments[3], environment)
    user = text_of(arguments[0], environment)
    data, new_data = arguments[1], arguments[2]
    if not reader.is_true(f"/developers/rest_functions/user_whitelist/{user}"):
        return False
    if new_data is not None and not is_absolute_url(new_data):
        return False
    if data is not None or new_data is None:
        return True
    urls = reader.get(f"/developers/rest_functions/url_whitelist/{user}")
    count = len(keys_of(urls)) if is_dict(urls) else 0
    most = reader.parameter("resource", "max_function_urls_per_developer")
    return isinstance(most, (int, float)) and count < most
