"""A config is a tree of named constructor calls: written with `spec`, turned into objects by `build`.

`spec(TextEncoder, width=256)` checks the keywords against the class at once, fills in every default
(so that the saved config is complete and every key can be overridden on the command line) and
remembers the class by its import path under `kind`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import json
import pathlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from taichu_jax.errors import UserError

KIND = "kind"
_OURS = ("taichu_jax", "configs", "tests")
_CONFIG_FILE = "taichu_config"  # a config file's module
_LINEN_FIELDS = {"parent", "name"}  # set by Flax on every module, never by a config


def choices(wrong: str, valid: Iterable[str]) -> str:
    """'; did you mean 'x'? valid: ...' for an error message, nearest names first."""
    valid = sorted(map(str, valid))
    near = difflib.get_close_matches(str(wrong), valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid: {', '.join(valid) or '(none)'}"


def spec(cls: type, /, **kwargs: Any) -> ConfigDict:
    """A ConfigDict that `build` turns into `cls(**kwargs)`.

    Raises:
      UserError: a keyword that `cls` does not take, or a required one that is missing.
    """
    defaults = _defaults(cls)
    kind = f"{cls.__module__}:{cls.__qualname__}"
    for key in kwargs:
        if key not in defaults:
            raise UserError(f"{cls.__name__}({key}=...): no such field; {choices(key, defaults)}")
    missing = [k for k, v in defaults.items() if v is dataclasses.MISSING and k not in kwargs]
    if missing:
        raise UserError(f"{cls.__name__}(...): needs {', '.join(missing)}")
    return ConfigDict({KIND: kind, **{k: _plain(kwargs.get(k, v)) for k, v in defaults.items()}})


def build(value: Any, key: str = "config") -> Any:
    """Turns every `spec` inside `value` into the object it describes; other values pass through."""
    if isinstance(value, Mapping | ConfigDict):
        built = {k: build(v, f"{key}.{k}") for k, v in value.items() if k != KIND}
        if KIND not in value:
            return built
        try:
            return _import(value[KIND])(**built)
        except (TypeError, ValueError) as error:
            raise UserError(f"{key}: {error}") from error
    if isinstance(value, tuple | list):
        return tuple(build(v, f"{key}[{i}]") for i, v in enumerate(value))
    return value


def load(path: str) -> ConfigDict:
    """Runs `get_config()` of FILE; of FILE:VALUE with VALUE as its first argument, of its type."""
    file, _, argument = path.partition(":")
    if not pathlib.Path(file).is_file():
        near = sorted(map(str, pathlib.Path(file).parent.glob("[a-z]*.py"))) if file else []
        raise UserError(f"--config {file}: no such file; {choices(file, near)}")
    module_spec = importlib.util.spec_from_file_location(_CONFIG_FILE, file)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"--config {file}: is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # so that classes defined in the file can be built
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError("defines no get_config()")
        parameters = list(inspect.signature(module.get_config).parameters.values())
        if argument and not parameters:
            raise UserError("get_config() of this file takes no argument")
        if not argument:
            return module.get_config()
        first = parameters[0]
        like = "" if first.default is first.empty else first.default
        return module.get_config(_parse(first.name, argument, like))
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from error
    except Exception as error:
        frame = next(
            (f for f in traceback.extract_tb(error.__traceback__)[::-1] if f.filename == file), None
        )
        where = f"{file}:{frame.lineno}" if frame else file
        line = " ".join(str(error).split())
        raise UserError(f"--config {path}: {where}: {type(error).__name__}: {line}") from error


def override(config: ConfigDict, assignments: Mapping[str, str]) -> ConfigDict:
    """Sets `a.b.c` to a value given as text, of the type the key already has."""
    for path, text in assignments.items():
        *parents, last = path.split(".")
        node: Any = config
        for i, part in enumerate(parents):
            node = _child(node, part, ".".join(parents[:i]))
        old = _child(node, last, ".".join(parents))
        node[last] = _parse(f"config.{path}", text, old)
    return config


def parse_arguments(argv: Sequence[str], flags: Mapping[str, str]) -> tuple[ConfigDict, dict]:
    """Splits `--config FILE --config.KEY=VALUE --FLAG VALUE` into the config and the plain flags.

    Args:
      argv: the arguments after the program's name; `--x=y` and `--x y` are the same.
      flags: the other flags that are taken, with their default values.
    """
    values, assignments, path = dict(flags), {}, None
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise UserError(f"{name}: not a flag; {choices(name, _flag_names(flags))}")
        name = name[2:]
        if name not in values and name != "config" and not name.startswith("config."):
            raise UserError(f"--{name}: no such flag; {choices('--' + name, _flag_names(flags))}")
        if not equals:
            if not rest:
                raise UserError(f"--{name}: needs a value")
            value = rest.pop(0)
        if name == "config":
            path = value
        elif name.startswith("config."):
            assignments[name.removeprefix("config.")] = value
        else:
            values[name] = value
    if path is None:
        raise UserError(
            "--config FILE is needed, for example --config configs/vision/mae_stamps.py"
        )
    return override(load(path), assignments), values


def to_json(config: ConfigDict) -> str:
    """The config as JSON text with sorted keys; tuples become lists."""
    # `to_dict` does not reach the sections inside tuples; `default` is called for those.
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True, default=lambda x: x.to_dict())
    return text + "\n"


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`; lists become tuples."""

    def tuples(value):
        if isinstance(value, list):
            return tuple(tuples(v) for v in value)
        return {k: tuples(v) for k, v in value.items()} if isinstance(value, dict) else value

    return ConfigDict(tuples(json.loads(text)))


def completed(config: ConfigDict) -> ConfigDict:
    """A saved config with the fields that its classes have gained since, at their defaults."""

    def complete(value):
        if isinstance(value, tuple | list):
            return tuple(map(complete, value))
        if not isinstance(value, Mapping | ConfigDict):
            return value
        result = {k: complete(v) for k, v in value.items()}
        if KIND in result:
            defaults = _defaults(_import(result[KIND]))
            gained = {k: _plain(v) for k, v in defaults.items() if v is not dataclasses.MISSING}
            result = gained | result
        return result

    return ConfigDict(complete(config))


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """One line 'key: old -> new' for every leaf in which two configs differ."""
    a, b = (_flatten(json.loads(to_json(c))) for c in (old, new))
    absent = "(absent)"
    return [
        f"{k}: {a.get(k, absent)} -> {b.get(k, absent)}"
        for k in sorted(a.keys() | b.keys())
        if a.get(k, absent) != b.get(k, absent)
    ]


def _defaults(cls: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(cls):
        raise UserError(f"{cls!r} is not a dataclass, so a config cannot name its fields")
    result = {}
    for field in dataclasses.fields(cls):
        if not field.init or field.name in _LINEN_FIELDS or field.name.startswith("_"):
            continue
        factory = field.default_factory
        result[field.name] = field.default if factory is dataclasses.MISSING else factory()
    return result


def _plain(value: Any) -> Any:
    """Objects given as defaults (a Teacher, a schedule) become specs themselves."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return spec(type(value), **{k: getattr(value, k) for k in _defaults(type(value))})
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    return value


def _import(kind: str) -> Any:
    """The class of a spec. Configs come with downloaded runs: nothing else may be imported or called.

    A class counts where it is defined, so that a module's imports cannot be reached through it.
    """
    module, _, name = str(kind).partition(":")
    if not _is_ours(module):
        raise UserError(f"kind={kind!r}: only classes of taichu_jax can be built from a config")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"kind={kind!r}: {error}") from error
    is_class = isinstance(found, type) and dataclasses.is_dataclass(found)
    if not is_class or found.__module__ != module:
        raise UserError(f"kind={kind!r}: is not a dataclass that {module} defines")
    return found


def _is_ours(module: str) -> bool:
    """Whether a module is a file of this project, or the config file that was named to this program."""
    if module == _CONFIG_FILE:
        return module in sys.modules
    package, *rest = parts = module.split(".")
    if package not in _OURS or not rest or not all(map(str.isidentifier, parts)):
        return False
    path = pathlib.Path(__file__).parents[1].joinpath(*parts)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _child(node: Any, part: str, where: str) -> Any:
    prefix = f"config.{where}".rstrip(".")
    if not isinstance(node, ConfigDict):
        raise UserError(f"--{prefix}.{part}: {prefix} is a value, it has no keys")
    if part not in node or part == KIND:
        valid = [k for k in node if k != KIND]
        raise UserError(f"--{prefix}.{part}: no such key; {choices(part, valid)}")
    return node[part]


def _parse(key: str, text: str, old: Any) -> Any:
    if isinstance(old, ConfigDict):
        raise UserError(f"--{key}={text}: is a section; its keys: {', '.join(old)}")
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if old is not None and value is not None and type(value) is not type(old):
        wanted = type(old).__name__
        raise UserError(f"--{key}={text}: must be {wanted}, like the present value {old!r}")
    return value


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else key))
    return flat


def _flag_names(flags: Mapping[str, str]) -> list[str]:
    return ["--config", *(f"--{name}" for name in flags)]
