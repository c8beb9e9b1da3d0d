"""The working state: the tree with what the executor asks it all the time, kept ready instead of searched for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from openresource.ledger.building import value_bytes
from openresource.ledger.nodes import NOTHING, Branch
from openresource.ledger.state_reader import StateReader
from openresource.ledger.tree import Tree
from openresource.ledger.views import find, plain
from openresource.primitives.limits import LABEL_LENGTH_MAX
from openresource.primitives.numbers import is_number

VALUES: Final = "values"
APPS: Final = "apps"
BLOCKCHAIN_PARAMS: Final = "blockchain_params"

_CONFIG_ROOTS: Final = ("rules", "functions", "owners")


class Limits:
    """The parameters that every transaction needs, read once until one of them changes."""

    __slots__ = (
        "apps_budget",
        "free_budget",
        "gas_price_min",
        "label_length_max",
        "op_list_max",
        "service_balance_min",
        "service_budget",
        "state_gas_coefficient",
        "tree_bytes_max",
        "tree_height_max",
        "unit_gas",
    )

    def __init__(self, parameters: Callable[[str], Any]) -> None:
        """`parameters` gives a parameter of the category `resource` by its name."""
        label_length: Any = parameters("state_label_length_limit")
        self.label_length_max: int = label_length if isinstance(label_length, int) else LABEL_LENGTH_MAX
        self.unit_gas: Any = parameters("unit_write_gas_amount")
        self.gas_price_min: Any = _number_or(parameters("min_gas_price"), 0)
        self.op_list_max: Any = _number_or(parameters("set_op_list_size_limit"), math.inf)
        self.service_balance_min: Any = _number_or(parameters("min_balance_for_service_tx"), 0)
        self.state_gas_coefficient: Any = _number_or(parameters("state_gas_coefficient"), 0)
        self.tree_height_max: Any = _number_or(parameters("state_tree_height_limit"), math.inf)
        self.tree_bytes_max: Any = _number_or(parameters("state_tree_bytes_limit"), math.inf)
        self.service_budget: Any = self.tree_bytes_max * _number_or(
            parameters("service_state_budget_ratio"), 1
        )
        self.apps_budget: Any = self.tree_bytes_max * _number_or(parameters("apps_state_budget_ratio"), 1)
        self.free_budget: Any = self.tree_bytes_max * _number_or(parameters("free_state_budget_ratio"), 1)


class Usage:
    """How many bytes services, all apps and some apps take."""

    __slots__ = ("app_bytes", "apps_bytes", "service_bytes")

    def __init__(self, service_bytes: int, apps_bytes: int, app_bytes: list[int]) -> None:
        self.service_bytes: int = service_bytes
        self.apps_bytes: int = apps_bytes
        self.app_bytes: list[int] = app_bytes


class State:
    """One tree that is being written, and the questions of the executor to it."""

    __slots__ = (
        "_app_config_bytes",
        "_config_branches",
        "_has_changed_config",
        "_has_changed_parameters",
        "_is_measured",
        "_limits",
        "_measured_app_bytes",
        "_measured_apps_bytes",
        "_parameters",
        "_values",
        "config_writes",
        "tree",
    )

    def __init__(self, tree: Tree) -> None:
        self.tree: Tree = tree
        self._parameters: dict[str, Any] = {}
        # Bytes under rules, functions and owners of each app; "" stands for all apps.
        self._app_config_bytes: dict[str, int] = {}
        # The branches of rules, functions and owners, good until one of them is written.
        self._config_branches: dict[str, Branch | None] = {}
        self._has_changed_config: bool = False
        self._has_changed_parameters: bool = False
        self._limits: Limits | None = None
        # How often rules, functions or owners were written: what was found in them is good while this stands still.
        self.config_writes: int = 0
        # The branch of /values, good until the next write.
        self._values: Branch | None = None
        # What was measured last, good until the next write.
        self._is_measured: bool = False
        self._measured_apps_bytes: int = 0
        self._measured_app_bytes: dict[str, int] = {}

    # -- reading ----------------------------------------------------------------------------------------------------

    def branch(self, root: str) -> Branch | None:
        """The branch of one of the four roots; None if nothing is below it."""
        if root == VALUES:
            return self._values_branch()
        if root in self._config_branches:
            return self._config_branches[root]
        value = self.tree.root.child(root)
        branch = value if isinstance(value, Branch) else None
        self._config_branches[root] = branch
        return branch

    def _values_branch(self) -> Branch | None:
        values = self._values
        if values is None:
            value = self.tree.root.child(VALUES)
            if isinstance(value, Branch):
                values = value
                self._values = value
        return values

    def get(self, labels: Sequence[str]) -> Any:
        """The plain value at full labels, the root first; None if there is none."""
        return plain(find(self.tree.root, list(labels)))

    def node(self, labels: list[str]) -> object:
        """What lies at full labels: a branch, a leaf's value or NOTHING."""
        return find(self.tree.root, labels)

    def read_value(self, labels: Sequence[str]) -> Any:
        """The plain value at labels below /values."""
        return plain(self.value_node(labels))

    def value_node(self, labels: Sequence[str]) -> object:
        """What lies at labels below /values: a branch, a leaf's value or NOTHING."""
        value: object = self._values_branch()
        for label in labels:
            if not isinstance(value, Branch):
                return NOTHING
            value = value.child(label)
        return NOTHING if value is None and not labels else value

    def has_value(self, labels: Sequence[str]) -> bool:
        """Whether there is anything at labels below /values."""
        return self.value_node(labels) is not NOTHING

    def parameter(self, category: str, name: str) -> Any:
        """A parameter of the chain from the state."""
        key = f"{category}/{name}"
        if key in self._parameters:
            return self._parameters[key]
        value = self.read_value((BLOCKCHAIN_PARAMS, category, name))
        self._parameters[key] = value
        return value

    @property
    def limits(self) -> Limits:
        """The limits that the state's parameters set."""
        limits = self._limits
        if limits is None:
            limits = Limits(self._resource_parameter)
            self._limits = limits
        return limits

    def _resource_parameter(self, name: str) -> Any:
        return self.parameter("resource", name)

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, labels: list[str], value: object) -> None:
        """Writes at full labels without any check; None deletes."""
        self._is_measured = False
        self._values = None
        if labels[0] != VALUES:
            self._has_changed_config = True
            self.config_writes += 1
            self._forget_config()
        elif len(labels) == 1 or labels[1] == BLOCKCHAIN_PARAMS:
            self._has_changed_parameters = True
            self._parameters.clear()
            self._limits = None
        self.tree.write(labels, value)

    def write_value(self, labels: Sequence[str], value: object) -> None:
        """Writes at labels below /values without any check; None deletes."""
        full = [VALUES]
        full.extend(labels)
        self.write(full, value)

    # -- versions ---------------------------------------------------------------------------------------------------

    def backup(self) -> None:
        """Keeps the state of now, so that `restore` can return to it."""
        self._has_changed_config = False
        self._has_changed_parameters = False
        self.tree.backup()

    def restore(self) -> None:
        """Returns to the backup."""
        self.tree.restore()
        self._is_measured = False
        self._values = None
        if self._has_changed_config:
            self._forget_config()
        if self._has_changed_parameters:
            self._parameters.clear()
            self._limits = None

    def drop_backup(self) -> None:
        """Lets go of the backup; what was written stays."""
        self.tree.drop_backup()

    def forget(self) -> None:
        """Drops everything derived, after the tree was put to another version."""
        self._forget_config()
        self._parameters.clear()
        self._limits = None
        self._is_measured = False
        self._values = None

    def _forget_config(self) -> None:
        self._app_config_bytes.clear()
        self._config_branches.clear()

    # -- usage ------------------------------------------------------------------------------------------------------

    def tree_height(self) -> int:
        """The height of the whole tree."""
        return 1 + self.tree.root.height

    def tree_bytes(self) -> int:
        """The bytes of the whole tree."""
        return value_bytes(self.tree.root)

    def usage(self, app_names: list[str]) -> Usage:
        """What services, all apps, and each of some apps take now."""
        measured = self._measured_app_bytes
        if not self._is_measured:
            measured.clear()
            self._measured_apps_bytes = self._bytes_of(self._apps_value(), "")
            self._is_measured = True
        app_bytes: list[int] = []
        for app in app_names:
            known = measured.get(app)
            if known is None:
                known = self.app_bytes(app)
                measured[app] = known
            app_bytes.append(known)
        apps_bytes = self._measured_apps_bytes
        return Usage(value_bytes(self.tree.root) - apps_bytes, apps_bytes, app_bytes)

    def app_bytes(self, app: str) -> int:
        """The bytes of one app under the four roots."""
        apps = self._apps_value()
        return self._bytes_of(apps.child(app) if isinstance(apps, Branch) else NOTHING, app)

    def free_tier_bytes(self) -> int | None:
        """The bytes of all apps without a stake; None if there is no such app. This looks at every app."""
        apps = self._apps_value()
        if not isinstance(apps, Branch):
            return None
        total = 0
        is_any = False
        for app, _ in apps.children():
            stake = self.value_node(("staking", app, "balance_total"))
            if not isinstance(stake, (int, float)) or isinstance(stake, bool) or not stake > 0:
                total += self.app_bytes(app)
                is_any = True
        return total if is_any else None

    def app_stake(self, app: str) -> float | int:
        """The stake of an app."""
        stake = self.value_node(("staking", app, "balance_total"))
        return stake if isinstance(stake, (int, float)) and not isinstance(stake, bool) else 0

    def app_stakes_total(self) -> float | int:
        """The stakes of all apps but consensus."""
        total = self.value_node(("staking", "balance_total_sum"))
        if isinstance(total, (int, float)):
            return total - self.app_stake("consensus")
        staking = self.value_node(("staking",))
        total_of_apps: float | int = 0
        if isinstance(staking, Branch):
            for app, _ in staking.children():
                if app != "consensus":
                    total_of_apps += self.app_stake(app)
        return total_of_apps

    def _apps_value(self) -> object:
        values = self._values_branch()
        return NOTHING if values is None else values.child(APPS)

    def _bytes_of(self, value: object, app: str) -> int:
        configured = self._app_config_bytes.get(app)
        if configured is None:
            configured = 0
            labels = [APPS, app] if app else [APPS]
            for root in _CONFIG_ROOTS:
                found = find(self.tree.root, [root, *labels])
                if found is not NOTHING:
                    configured += value_bytes(found)
            self._app_config_bytes[app] = configured
        return configured if value is NOTHING else configured + value_bytes(value)


def root_branch(state: StateReader, root: str) -> Branch | None:
    """The branch of one of the four roots; a call of a class that is known is far cheaper than one by a protocol."""
    if isinstance(state, State):
        return state.branch(root)
    branch: Branch | None = state.branch(root)
    return branch


def _number_or(value: Any, otherwise: Any) -> Any:
    return value if is_number(value) else otherwise
