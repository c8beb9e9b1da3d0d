"""From a typed Python function to a description of its input and output, and from JSON to its arguments.

Runs inside the sandbox with the standard library alone.
"""

import ast
import base64
import binascii
import collections.abc
import contextvars
import dataclasses
import datetime
import enum
import inspect
import pathlib
import shutil
import sys
import tempfile
import types
import typing

DEPTH_MAX = 12
HIDDEN = ("setup", "teardown")
TEXT_SCHEMA = {"type": "string"}
BYTES_SCHEMA = {"type": "string", "contentEncoding": "base64"}
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
STREAMS = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)


LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)

# The folder of files that were made for the arguments of a call: each thread and each task has its own.
_made: contextvars.ContextVar[typing.Any] = contextvars.ContextVar("made", default=None)


class BadInput(Exception):
    """The caller's input does not fit; the message names the field."""


class Nameless(TypeError):
    """A parameter that callers cannot name."""


class Method:
    """A callable that was described."""

    def __init__(self, name: str, function: typing.Any) -> None:
        self.name = name
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.is_stream = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        target = function if inspect.isroutine(function) else type(function).__call__
        try:
            hints = hints_of(target)
        except Exception as problem:
            raise TypeError(f"the types of {name} cannot be read: {problem}") from None
        self.returns = hints.pop("return", typing.Any)
        self.parameters = {}
        # Defaults that are not what stands in the signature.
        self.filled: dict[str, typing.Any] = {}
        self.takes_anything = False
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                self.takes_anything = True
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise Nameless(f"{name}: parameter {parameter.name} has no name for callers; drop / and *")
            else:
                hint = hints.get(parameter.name, typing.Any)
                default = parameter.default
                note = getattr(default, "openresource_note", None)
                if isinstance(note, dict):
                    # Frameworks that describe a parameter by its default, as Cog does.
                    hint = typing.Annotated[hint, note]
                    if default.is_required:
                        default = inspect.Parameter.empty
                    else:
                        default = self.filled[parameter.name] = default.default
                self.parameters[parameter.name] = (hint, default)
        self.required = [
            name for name, (_, default) in self.parameters.items() if default is inspect.Parameter.empty
        ]

    @property
    def list_parameter(self) -> str:
        """The first parameter, if it takes a list and the result is a list: calls to such a method can be joined."""
        first = next(iter(self.parameters), "")
        if not first or self.is_stream or not is_list(self.returns):
            return ""
        return first if is_list(self.parameters[first][0]) else ""

    def arguments(self, value: typing.Any) -> typing.Any:
        """Keyword arguments from parsed JSON; a lone value goes to the only parameter."""
        if not isinstance(value, dict):
            if len(self.parameters) == 1 or len(self.required) == 1:
                value = {(self.required or list(self.parameters))[0]: value}
            elif value is None:
                value = {}
            else:
                raise BadInput(
                    f"the input must be an object with {', '.join(self.parameters) or 'no members'}"
                )
        missing = [name for name in self.required if name not in value]
        if missing:
            raise BadInput(f"{missing[0]} is missing: it is required")
        arguments = dict(self.filled)
        for name, item in value.items():
            if name in self.parameters:
                arguments[name] = coerce(item, self.parameters[name][0], name, 0)
            elif self.takes_anything:
                arguments[name] = item
            else:
                raise BadInput(f"{name} is not known: the names are {', '.join(self.parameters) or 'none'}")
        return arguments

    def raw_argument(self, body: typing.Any) -> typing.Any:
        """The one argument of a method that takes a body as it is."""
        names = self.required or list(self.parameters)
        if len(names) != 1 or plain_hint(self.parameters[names[0]][0]) not in (bytes, str):
            raise BadInput("this method takes JSON")
        return {names[0]: body if plain_hint(self.parameters[names[0]][0]) is bytes else body.decode()}

    def describe(self) -> typing.Any:
        """The method's part of the interface."""
        properties = {}
        for name, (hint, default) in self.parameters.items():
            schema = dict(schema_of(hint, 0))
            if default is not inspect.Parameter.empty and isinstance(default, str | int | float | bool):
                schema["default"] = default
            properties[name] = schema
        returns = self.returns
        if self.is_stream or typing.get_origin(returns) in STREAMS:
            parts = typing.get_args(returns)
            returns = parts[0] if parts else typing.Any
        document = inspect.getdoc(self.function) or ""
        return {
            "name": self.name,
            "path": f"/{self.name}",
            "summary": document.strip().partition("\n")[0][:300],
            "input": {
                "type": "object",
                "properties": properties,
                "required": self.required,
                "additionalProperties": self.takes_anything,
            },
            "output": schema_of(returns, 0),
            "stream": self.is_stream,
        }


def hints_of(target: typing.Any) -> typing.Any:
    """The types of a function; one whose names its file imports for type checkers alone may be anything."""
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as problem:
        if problem.name not in names_for_checkers(target):
            raise
    known = getattr(inspect.unwrap(target), "__globals__", {})
    hints = {}
    for name, annotation in target.__annotations__.items():
        lone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints.update(typing.get_type_hints(lone, globalns=known, include_extras=True))
        except NameError as problem:
            if problem.name not in names_for_checkers(target):
                raise
            hints[name] = typing.Any
    return hints


def names_for_checkers(target: typing.Any) -> typing.Any:
    """What a function's file imports only where TYPE_CHECKING holds, which is never while it runs."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[target.__module__]))
    except (OSError, TypeError, KeyError, SyntaxError):
        return set()
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"
    ]
    return {
        alias.asname or alias.name.partition(".")[0]
        for block in blocks
        for part in block.body
        for node in ast.walk(part)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def methods_of(entry: typing.Any) -> typing.Any:
    """The methods of an entry: a function is one, an object or a module has its public ones."""
    if inspect.ismodule(entry):
        return functions_of(entry)
    if inspect.isroutine(entry):
        return {entry.__name__: Method(entry.__name__, entry)}
    found = {}
    nameless = []
    for name, function in inspect.getmembers(entry, callable):
        if not name.startswith("_") and name not in HIDDEN and inspect.isroutine(function):
            try:
                found[name] = Method(name, function)
            except Nameless as problem:
                nameless.append(problem)
    if nameless and not found:
        raise nameless[0]
    if not found and callable(entry):
        found["call"] = Method("call", entry)
    if not found:
        raise TypeError("the entry has no public method")
    return found


def functions_of(module: typing.Any) -> typing.Any:
    """The public functions of a module that callers can name every parameter of."""
    listed = getattr(module, "__all__", None)
    found = {}
    for name, function in vars(module).items():
        is_own = getattr(function, "__module__", "") == module.__name__
        if not inspect.isfunction(function) or name.startswith("_") or name in HIDDEN:
            continue
        if name in listed if listed is not None else is_own:
            try:
                found[name] = Method(name, function)
            except TypeError:
                continue
    if not found:
        raise TypeError(f"{module.__name__} has no public function whose parameters have names")
    return found


def is_list(hint: typing.Any) -> bool:
    """Whether a hint is that of a list."""
    hint = plain_hint(hint)
    return is_a(hint, typing.get_origin(hint), LISTS)


def plain_hint(hint: typing.Any) -> typing.Any:
    """A hint without what Annotated adds."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def schema_of(hint: typing.Any, depth: int) -> typing.Any:
    """The JSON Schema of a type hint; what is not known describes nothing."""
    if depth > DEPTH_MAX:
        return {}
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Required, typing.NotRequired):
        return schema_of(parts[0], depth)
    if origin is typing.Annotated:
        schema = dict(schema_of(parts[0], depth))
        for note in parts[1:]:
            if isinstance(note, str):
                schema["description"] = note[:300]
            elif isinstance(note, dict):
                schema.update(note)
        return schema
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if hint is None:
        return {"type": "null"}
    if hint in (bytes, bytearray) or is_path(hint):
        return dict(BYTES_SCHEMA)
    if hint is datetime.datetime:
        return {"type": "string", "format": "date-time"}
    if hint is datetime.date:
        return {"type": "string", "format": "date"}
    if origin is typing.Literal:
        return {"enum": list(parts)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(part, depth + 1) for part in parts]}
    if hint is tuple or origin is tuple:
        items = parts[0] if len(parts) == 2 and parts[1] is Ellipsis else None
        schema = {"type": "array", "items": schema_of(items, depth + 1)} if items else {"type": "array"}
        if parts and items is None:
            schema.update(minItems=len(parts), maxItems=len(parts))
        return schema
    if is_a(hint, origin, (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)):
        return {"type": "array", "items": schema_of(parts[0], depth + 1)} if parts else {"type": "array"}
    if is_a(hint, origin, (dict, collections.abc.Mapping)):
        return (
            {"type": "object", "additionalProperties": schema_of(parts[1], depth + 1)}
            if parts
            else {"type": "object"}
        )
    if isinstance(hint, type):
        return schema_of_class(hint, depth)
    return {}


def schema_of_class(kind: typing.Any, depth: int) -> typing.Any:
    """The schema of an enumeration, a dataclass or a typed dictionary."""
    if issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = dataclasses.fields(kind)
        return {
            "type": "object",
            "properties": {
                field.name: schema_of(hints[field.name], depth + 1) for field in fields if field.init
            },
            "required": [field.name for field in fields if field.init and is_required(field)],
            "additionalProperties": False,
        }
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {
            "type": "object",
            "properties": {name: schema_of(hint, depth + 1) for name, hint in hints.items()},
            "required": required_keys(kind, hints),
        }
    if kind in (object, typing.Any):
        return {}
    if is_model(kind):
        fields = kind.model_fields
        return {
            "type": "object",
            "properties": {name: schema_of(field.annotation, depth + 1) for name, field in fields.items()},
            "required": [name for name, field in fields.items() if field.is_required()],
        }
    return {"type": "object"}


def is_model(kind: typing.Any) -> bool:
    """Whether a class is a model of pydantic, which checks its own values."""
    return isinstance(kind, type) and hasattr(kind, "model_validate") and hasattr(kind, "model_fields")


def is_path(hint: typing.Any) -> bool:
    """Whether a hint is a path: callers send and get the file's content."""
    return isinstance(hint, type) and issubclass(hint, pathlib.PurePath)


def file_of(content: bytes, kind: typing.Any) -> typing.Any:
    """A file of this call with some content; it goes when the call ends."""
    if _made.get() is None:
        _made.set(tempfile.mkdtemp(prefix="call-"))
    descriptor, path = tempfile.mkstemp(prefix="input-", dir=_made.get())
    with open(descriptor, "wb") as file:
        file.write(content)
    return (pathlib.Path if kind is pathlib.PurePath else kind)(path)


def forget_files() -> None:
    """Remove what `file_of` made for this call."""
    folder = _made.get()
    if folder is not None:
        _made.set(None)
        shutil.rmtree(folder, ignore_errors=True)


def required_keys(kind: typing.Any, hints: typing.Any) -> list[str]:
    """The members that a typed dictionary must have; Python itself errs where annotations are texts."""
    marked = {name: typing.get_origin(hint) for name, hint in hints.items()}
    return [
        name
        for name in hints
        if marked[name] is typing.Required or (kind.__total__ and marked[name] is not typing.NotRequired)
    ]


def is_required(field: typing.Any) -> bool:
    """Whether a dataclass's field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def is_a(hint: typing.Any, origin: typing.Any, kinds: typing.Any) -> bool:
    """Whether a hint is one of some containers, with or without its parts."""
    return hint in kinds or origin in kinds


def coerce(value: typing.Any, hint: typing.Any, field: str, depth: int) -> typing.Any:
    """JSON to what a hint names, or a refusal that names the field."""
    if depth > DEPTH_MAX:
        raise BadInput(f"{field} is nested too deeply")
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return coerce(value, parts[0], field, depth)
    if hint is typing.Any or hint is object:
        return value
    if hint in (str, bool) or hint is type(None) or hint is None:
        kind = type(None) if hint is None else hint
        if type(value) is kind:
            return value
        raise wrong(field, value, PLAIN[kind])
    if hint is int:
        if type(value) is int or (type(value) is float and value.is_integer()):
            return int(value)
        raise wrong(field, value, "whole number")
    if hint is float:
        if type(value) in (int, float):
            return float(value)
        raise wrong(field, value, "number")
    if hint in (bytes, bytearray):
        return hint(decoded(value, field))
    if is_path(hint):
        return file_of(decoded(value, field), hint)
    if origin is typing.Literal:
        if any(value == part and type(value) is type(part) for part in parts):
            return value
        raise wrong(field, value, "one of " + ", ".join(map(repr, parts)))
    if origin in (typing.Union, types.UnionType):
        return coerce_union(value, parts, field, depth)
    if is_a(hint, origin, (list, set, frozenset, tuple, collections.abc.Sequence, collections.abc.Iterable)):
        return coerce_list(value, hint, origin, parts, field, depth)
    if is_a(hint, origin, (dict, collections.abc.Mapping)):
        if not isinstance(value, dict):
            raise wrong(field, value, "object")
        inner = parts[1] if parts else typing.Any
        return {name: coerce(item, inner, f"{field}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(hint, type):
        return coerce_class(value, hint, field, depth)
    return value


def coerce_union(value: typing.Any, parts: typing.Any, field: str, depth: int) -> typing.Any:
    """The first of several types that a value fits; exact ones before those that convert."""
    for part in sorted(parts, key=lambda part: type(value) is not part):
        try:
            return coerce(value, part, field, depth + 1)
        except BadInput as problem:
            last = problem
    raise last


def coerce_list(
    value: typing.Any, hint: typing.Any, origin: typing.Any, parts: typing.Any, field: str, depth: int
) -> typing.Any:
    """A JSON list to a list, tuple or set."""
    if not isinstance(value, list):
        raise wrong(field, value, "list")
    kind = next((kind for kind in (set, frozenset, tuple) if kind in (hint, origin)), list)
    if kind is tuple and parts and not (len(parts) == 2 and parts[1] is Ellipsis):
        if len(parts) != len(value):
            raise wrong(field, value, f"list of {len(parts)}")
        return tuple(
            coerce(item, part, f"{field}[{number}]", depth + 1)
            for number, (item, part) in enumerate(zip(value, parts, strict=True))
        )
    inner = parts[0] if parts else typing.Any
    try:
        return kind(coerce(item, inner, f"{field}[{number}]", depth + 1) for number, item in enumerate(value))
    except TypeError:
        raise wrong(field, value, "list without lists or objects in it") from None


def coerce_class(value: typing.Any, kind: typing.Any, field: str, depth: int) -> typing.Any:
    """A JSON value to an enumeration, a date, a dataclass or a typed dictionary."""
    if issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise wrong(field, value, "one of " + ", ".join(repr(member.value) for member in kind)) from None
    if is_model(kind):
        try:
            return kind.model_validate(value)
        except ValueError as problem:
            raise BadInput(f"{field}: {problem}") from None
    if kind in (datetime.datetime, datetime.date):
        try:
            return kind.fromisoformat(value)
        except (TypeError, ValueError):
            raise wrong(field, value, "date in ISO form") from None
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        if not isinstance(value, dict):
            raise wrong(field, value, "object")
        hints = typing.get_type_hints(kind, include_extras=True)
        unknown = [name for name in value if name not in hints]
        if unknown:
            raise BadInput(f"{field}.{unknown[0]} is not known: the names are {', '.join(hints)}")
        members = {
            name: coerce(item, hints[name], f"{field}.{name}", depth + 1) for name, item in value.items()
        }
        required = schema_of_class(kind, DEPTH_MAX)["required"]
        missing = [name for name in required if name not in members]
        if missing:
            raise BadInput(f"{field}.{missing[0]} is missing: it is required")
        return kind(**members)
    return value


def decoded(value: typing.Any, field: str) -> typing.Any:
    """Bytes from base64 text."""
    if not isinstance(value, str):
        raise wrong(field, value, "base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise wrong(field, value, "base64 text") from None


def wrong(field: str, value: typing.Any, expected: typing.Any) -> typing.Any:
    """The refusal of a value."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:60] + "…"
    return BadInput(f"{field} is {shown}, but it must be a {expected}".replace("a one of", "one of"))


def to_json(value: typing.Any) -> typing.Any:
    """What `json.dumps` asks for when it meets something that is not JSON."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if is_model(type(value)):
        return value.model_dump(mode="json")
    if isinstance(value, pathlib.PurePath):
        return base64.b64encode(pathlib.Path(value).read_bytes()).decode()
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    if isinstance(
        value,
        set | frozenset | collections.abc.Iterator | collections.abc.KeysView | collections.abc.ValuesView,
    ):
        return list(value)
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    for name in ("tolist", "item", "_asdict"):
        if callable(getattr(value, name, None)):
            return getattr(value, name)()
    raise TypeError(f"an answer holds a {type(value).__name__}, which is not JSON")
