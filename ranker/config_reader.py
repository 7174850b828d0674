"""Reads typed values out of a plain configuration, and tells all that is wrong with it at once.

Every problem names the key, the value, the rule and the nearest valid name. A class is named by
`_target_`, but only classes under the first-party roots, or under packages given as `plugins=[pkg]`
on the command line, are ever imported: a configuration is data.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, get_origin

from ranker.type_hints import built_by, dataclass_in, describe, matches

FIRST_PARTY_ROOTS = ("ranker", "ranker_data")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message lists every problem found."""


class ConfigReader:
    """Reads typed values out of a plain config and collects what is wrong with them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.errors: list[str] = []

    def check_keys(self, known: Iterable[str], path: str = "") -> None:
        """Reports keys of the mapping at `path` that nothing reads."""
        known = list(known)
        values = self._find(path) if path else self.config
        for key in values if isinstance(values, Mapping) else ():
            if key not in known:
                self.errors.append(
                    f"unknown key {_join(path, str(key))}{_suggest(str(key), known)}"
                )

    def value(self, path: str, hint: Any, default: Any = dataclasses.MISSING) -> Any:
        """Returns the value at `path` if it is there and of the type `hint`, else reports it."""
        value = self._find(path)
        if value is dataclasses.MISSING or (value is None and default is not dataclasses.MISSING):
            if default is dataclasses.MISSING:
                self.errors.append(f"{path} is missing; it must be {describe(hint)}")
                return None
            return default
        if not matches(value, hint):
            self.errors.append(f"{path} is {value!r}; it must be {describe(hint)}")
            return None
        return value

    def section(self, path: str, cls: type) -> Any:
        """Builds the dataclass `cls` from the mapping at `path`."""
        hints = typing.get_type_hints(cls)
        before = len(self.errors)
        if not isinstance(self._find(path), Mapping):
            self.errors.append(f"{path} must be a group of keys")
            return None
        self.check_keys(hints, path)
        values = {}
        for field in dataclasses.fields(cls):
            key = f"{path}.{field.name}"
            required = (
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            )
            if required or self._find(key) is not dataclasses.MISSING:
                values[field.name] = self._argument(key, hints[field.name])
        return self._call(path, cls, values) if len(self.errors) == before else None

    def _argument(self, path: str, hint: Any) -> Any:
        """Returns the value of an argument, or the dataclass that its keys make."""
        nested, found = dataclass_in(hint), self._find(path)
        if nested is not None and found is not None:
            if get_origin(hint) is Mapping and isinstance(found, Mapping):
                return {str(name): self.section(f"{path}.{name}", nested) for name in found}
            return self.section(path, nested)
        return self.value(path, hint)

    def factory(
        self,
        path: str,
        roots: tuple[str, ...],
        contract: type,
        runtime: set[str],
        offered: Set[str] = frozenset(),
        reserved: Set[str] = frozenset(),
    ) -> Callable[..., Any]:
        """Returns a constructor with the arguments at `path` bound.

        `runtime` ones are given when it is called; `offered` ones too, but a constructor may do
        without them. `reserved` keys belong to somebody else.
        """
        before = len(self.errors)
        values = self._find(path)
        if not isinstance(values, Mapping) or "_target_" not in values:
            self.errors.append(
                f"{path} must be a group with a _target_, the {contract.__name__}'s class"
            )
            return _unbuildable
        target = self._import(f"{path}._target_", str(values["_target_"]), roots)
        if target is None:
            return _unbuildable
        parameters = inspect.signature(target).parameters
        hints = typing.get_type_hints(target.__init__)
        chosen = [name for name in parameters if name not in runtime | offered]
        self.check_keys([*chosen, "_target_", *reserved], path)
        arguments = {}
        for key in chosen:
            required = parameters[key].default is inspect.Parameter.empty
            if not required and key not in values:
                continue
            nested = built_by(hints[key])
            arguments[key] = (
                self._argument(f"{path}.{key}", hints[key])
                if nested is None
                else self.factory(f"{path}.{key}", roots, nested, set())
            )
        missing = sorted(runtime - set(parameters))
        if missing:
            self.errors.append(
                f"{path}._target_: {target.__name__} must accept {', '.join(missing)} "
                f"(contract of {contract.__name__})"
            )
        if len(self.errors) > before:
            return _unbuildable
        return functools.partial(_construct, target, offered - set(parameters), **arguments)

    def raise_errors(self) -> None:
        """Raises what was collected.

        Raises:
            ConfigError: if there is anything.
        """
        if self.errors:
            listed = "\n  ".join(self.errors)
            raise ConfigError(f"{len(self.errors)} problem(s) in the configuration:\n  {listed}")

    def _call(self, path: str, cls: type, values: dict[str, Any]) -> Any:
        try:
            return cls(**values)
        except ValueError as error:
            self.errors.append(f"{path}: {error}")
            return None

    def _find(self, path: str) -> Any:
        node: Any = self.config
        for key in path.split("."):
            if not isinstance(node, Mapping) or key not in node:
                return dataclasses.MISSING
            node = node[key]
        return node

    def _import(self, path: str, target: str, roots: tuple[str, ...]) -> Any:
        module, _, name = target.rpartition(".")
        if target.split(".")[0] not in roots or not module:
            self.errors.append(
                f"{path} is {target!r}; only classes under {', '.join(roots)} may be named "
                "(add your package with plugins=[package])"
            )
            return None
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            self.errors.append(f"{path} is {target!r}, which cannot be imported ({error})")
            return None
        if not inspect.isclass(found) or found.__module__.split(".")[0] not in roots:
            self.errors.append(f"{path} is {target!r}, which is no class of {', '.join(roots)}")
            return None
        return found


def _construct(target: Callable[..., Any], declined: Set[str], /, **arguments: Any) -> Any:
    """Calls `target` without the offered arguments that it does not take."""
    return target(**{name: value for name, value in arguments.items() if name not in declined})


def _unbuildable(**_: Any) -> Any:
    raise AssertionError("raise_errors comes before building")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _suggest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys are {', '.join(sorted(k for k in known if k != '_target_'))}"
