"""The working state: the tree with what the executor asks it all the time, kept ready instead of searched for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from openresource.ledger.building import value_bytes
from openresource.ledger.nodes import NOTHING, Branch
from openresource.ledger.tree import Tree
from openresource.ledger.views import find, plain

VALUES: Final = "values"
APPS: Final = "apps"
BLOCKCHAIN_PARAMS: Final = "blockchain_params"

_CONFIG_ROOTS: Final = ("rules", "functions", "owners")


class State:
    """One tree that is being written, and the questions of the executor to it."""

    __slots__ = (
        "_app_config_bytes",
        "_has_changed_config",
        "_has_changed_parameters",
        "_parameters",
        "tree",
    )

    def __init__(self, tree: Tree) -> None:
        self.tree: Tree = tree
        self._parameters: dict[str, Any] = {}
        # Bytes under rules, functions and owners of each app; "" stands for all apps.
        self._app_config_bytes: dict[str, int] = {}
        self._has_changed_config: bool = False
        self._has_changed_parameters: bool = False

    # -- reading ----------------------------------------------------------------------------------------------------

    def branch(self, root: str) -> Branch | None:
        """The branch of one of the four roots; None if nothing is below it."""
        value = self.tree.root.child(root)
        return value if isinstance(value, Branch) else None

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
        value = self.tree.root.child(VALUES)
        for label in labels:
            if not isinstance(value, Branch):
                return NOTHING
            value = value.child(label)
        return value

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

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, labels: list[str], value: object) -> None:
        """Writes at full labels without any check; None deletes."""
        if labels[0] != VALUES:
            self._has_changed_config = True
            self._app_config_bytes.clear()
        elif len(labels) == 1 or labels[1] == BLOCKCHAIN_PARAMS:
            self._has_changed_parameters = True
            self._parameters.clear()
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
        if self._has_changed_config:
            self._app_config_bytes.clear()
        if self._has_changed_parameters:
            self._parameters.clear()

    def drop_backup(self) -> None:
        """Lets go of the backup; what was written stays."""
        self.tree.drop_backup()

    def forget(self) -> None:
        """Drops everything derived, after the tree was put to another version."""
        self._app_config_bytes.clear()
        self._parameters.clear()

    # -- usage ------------------------------------------------------------------------------------------------------

    def tree_height(self) -> int:
        """The height of the whole tree."""
        return 1 + self.tree.root.height

    def tree_bytes(self) -> int:
        """The bytes of the whole tree."""
        return value_bytes(self.tree.root)

    def apps_bytes(self) -> int:
        """The bytes of all apps under the four roots."""
        return self._bytes_of(self._apps_value(), "")

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
            if not isinstance(stake, int | float) or isinstance(stake, bool) or not stake > 0:
                total += self.app_bytes(app)
                is_any = True
        return total if is_any else None

    def app_stake(self, app: str) -> float | int:
        """The stake of an app."""
        stake = self.value_node(("staking", app, "balance_total"))
        return stake if isinstance(stake, int | float) and not isinstance(stake, bool) else 0

    def app_stakes_total(self) -> float | int:
        """The stakes of all apps but consensus."""
        total = self.value_node(("staking", "balance_total_sum"))
        if isinstance(total, int | float):
            return total - self.app_stake("consensus")
        staking = self.value_node(("staking",))
        total_of_apps: float | int = 0
        if isinstance(staking, Branch):
            for app, _ in staking.children():
                if app != "consensus":
                    total_of_apps += self.app_stake(app)
        return total_of_apps

    def _apps_value(self) -> object:
        values = self.tree.root.child(VALUES)
        return values.child(APPS) if isinstance(values, Branch) else NOTHING

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
