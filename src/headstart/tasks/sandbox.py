"""Runs Jinja text from strangers: no files, no private attributes, no endless work.

It knows no examples. Every loop step, call, filter, operator and output is metered by a ``Budget``:
the characters it touches and the processor time since the start. What could only be bounded with
many rules (macros, blocks, includes, padding methods) is refused instead; none of promptsource's
2,085 templates uses it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from random import Random
from types import GeneratorType
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.filters import do_join
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUTPUT_LIMIT = 200_000
"""Characters a template may render to."""
WORK_LIMIT = 20_000_000
"""Characters a render may touch, a loop step counting as ``_STEP`` of them."""
SECONDS_LIMIT = 1.0
"""Processor time a render may take."""

_STEP = 20
_ITEM = 8
_STATEMENTS = (nodes.Template, nodes.Output, nodes.For, nodes.If, nodes.Assign)
_BUILDERS = (nodes.List, nodes.Dict, nodes.Tuple)
# As texts, because as lists they would take eighty lines.
_METHODS = frozenset(
    """
    capitalize casefold count cycle endswith find get index isalnum isalpha isdigit islower
    isnumeric isspace istitle isupper items join keys lower lstrip partition removeprefix
    removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith
    strip swapcase title upper values
    """.split()  # noqa: SIM905
)
_FILTERS = """
    abs capitalize d default dictsort first float format int items last length list lower
    map max min reject rejectattr reverse round select selectattr sort string title trim
    truncate unique upper wordcount
    """.split()  # noqa: SIM905
# No template can name these: Jinja's names hold no space.
_BUDGET = "the budget"
_LOOP = "loop steps"
_KEEP = "as it is"
_WIDTH = re.compile(r"\d{4}|\*")


class LimitError(Exception):
    """A template asks for more work than a template may."""


@dataclass
class Budget:
    """What is left of one render's work, and the random numbers its ``choice`` filter draws.

    Example:
        >>> budget = Budget(Random(0))
        >>> budget.spend("some text")
        >>> budget.left == WORK_LIMIT - _STEP - _ITEM - 9
        True
    """

    random: Random
    left: int = WORK_LIMIT
    deadline: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock: processor time of this thread, so that a busy machine does no harm."""
        self.deadline = time.thread_time() + SECONDS_LIMIT

    def spend(self, *values: object) -> None:
        """Pay for one step that touches ``values``.

        Raises:
            LimitError: The work or the time is used up.

        Example:
            >>> Budget(Random(0)).spend("some text")
        """
        self.pay(_STEP + sum(_weight(value) for value in values))

    def pay(self, characters: int) -> None:
        """Pay for a number of characters.

        Raises:
            LimitError: The work or the time is used up.

        Example:
            >>> Budget(Random(0)).pay(WORK_LIMIT)
        """
        self.left -= characters
        if self.left < 0 or time.thread_time() > self.deadline:
            raise LimitError("it does too much work; shorten its loops and texts")


@dataclass(frozen=True)
class Program:
    """A parsed template: the names it needs from outside, and its compiled form.

    Example:
        >>> sorted(parse("{{ a }}{% set b = c %}{{ b }}").variables)
        ['a', 'c']
    """

    variables: frozenset[str]
    compiled: jinja2.Template


@lru_cache(maxsize=4096)
def parse(text: str) -> Program:
    """Parse and compile a Jinja text, and make its loops and lists pay their way.

    Raises:
        jinja2.TemplateSyntaxError: The text is not valid Jinja, or uses what is refused here.

    Example:
        >>> run(parse("Dear {{ name }},"), {"name": "Ada"}, Random(0))
        'Dear Ada,'
    """
    environment = _environment()
    tree = environment.parse(text)
    variables = frozenset(meta.find_undeclared_variables(tree)) - set(environment.globals)
    _refuse(tree)
    _meter(tree)
    code = environment.compile(tree)
    names = dict(environment.globals)
    return Program(variables, jinja2.Template.from_code(environment, code, names))


def run(
    program: Program, variables: Mapping[str, Any], random: Random, until: str | None = None
) -> str:
    """Render a parsed template, if ``until`` is given only up to its first occurrence.

    Raises:
        LimitError: The work, the time or ``OUTPUT_LIMIT`` is used up.
        Exception: Whatever else a template can do wrong, from any of Jinja's functions.

    Example:
        >>> run(parse("{{ ['a', 'b'] | join('-') }}"), {}, Random(0))
        'a-b'
    """
    pieces: list[str] = []
    size = 0
    for piece in program.compiled.generate({**variables, _BUDGET: Budget(random)}):
        pieces.append(piece)
        size += len(piece)
        if size > OUTPUT_LIMIT:
            raise LimitError(f"it renders to more than {OUTPUT_LIMIT:,} characters")
        if until is not None and until in piece:
            break
    text = "".join(pieces)
    return text if until is None else text.partition(until)[0]


def _weight(value: object) -> int:
    """Count the characters and items in a value, hardly further than a render may touch.

    A list that holds one list many times weighs many times: printing it would take as long.
    """
    total = 0
    stack = [value]
    while stack and total <= WORK_LIMIT:
        item = stack.pop()
        if isinstance(item, (str, bytes, range)):
            total += len(item)
        elif isinstance(item, Mapping):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack += item
        elif isinstance(item, int):
            total += item.bit_length()
        total += _ITEM
    return total


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, with methods of values named one by one and operators metered."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and (
            not callable(value) or attr in _METHODS
        )

    def wrap_str_format(self, value: Any) -> None:
        """Leave ``str.format`` to ``is_safe_attribute``, which refuses it: it pads at will."""

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = __context[_BUDGET]
        owner = getattr(__obj, "__self__", None)
        budget.spend(owner, args, kwargs)
        if isinstance(owner, str) and __obj.__name__ == "replace":
            __obj, args = _replace, (owner, *args)
        elif isinstance(owner, str) and __obj.__name__ == "join":
            __obj, args = _join, (*args, owner)
        return _paid(super().call(__context, __obj, *args, **kwargs), budget)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget: Budget = context[_BUDGET]
        budget.spend(left, right)
        if operator == "%" and isinstance(left, str):
            _check_format(left, budget, right)
        elif operator == "*":
            budget.pay(_product(left, right))
        elif operator == "**":
            budget.pay((_bits(left) * abs(int(right)) // 3) ** 2)
        return super().call_binop(context, operator, left, right)


def _product(left: Any, right: Any) -> int:
    """Weigh ``"ab" * 3`` and ``3 * [1]`` by their result, ``3 * 4`` by the digits to multiply."""
    if isinstance(right, int) and isinstance(left, (str, list, tuple)):
        return _weight(left) * max(right, 0)
    if isinstance(left, int) and isinstance(right, (str, list, tuple)):
        return _weight(right) * max(left, 0)
    return _bits(left) * _bits(right) // 9


def _bits(number: Any) -> int:
    return number.bit_length() if isinstance(number, int) else 1


def _check_format(pattern: str, budget: Budget, values: object) -> None:
    if _WIDTH.search(pattern):
        raise LimitError("it formats to a width of over 999 characters, or to a variable one")
    budget.pay(_weight(pattern) * _weight(values))


def _paid(value: Any, budget: Budget) -> Any:
    """Make a result pay: at once if it is there, item by item if it is still to come."""
    if isinstance(value, (GeneratorType, map, filter, zip)):
        return _steps(value, budget)
    budget.spend(value)
    return value


def _steps(items: Any, budget: Budget) -> Iterator[Any]:
    for item in items:
        budget.spend()
        yield item


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its arguments and its result are paid for."""
    kind = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @wraps(function)
    def filtered(context: Context, *args: Any, **kwargs: Any) -> Any:
        budget: Budget = context[_BUDGET]
        budget.spend(args, kwargs)
        if any(isinstance(n, int) and abs(n) > OUTPUT_LIMIT for n in (*args[1:], *kwargs.values())):
            raise LimitError(f"it gives a filter a number over {OUTPUT_LIMIT:,}")
        if function.__name__ == "do_format":
            _check_format(str(args[0]), budget, [*args[1:], *kwargs.values()])
        first: dict[str, object] = {"context": context, "eval_context": context.eval_ctx}
        first["environment"] = context.environment
        passed = [] if kind is None else [first[kind]]
        return _paid(function(*passed, *args, **kwargs), budget)

    return jinja2.pass_context(filtered)


@jinja2.pass_context
def _choice(context: Context, items: Sequence[Any]) -> Any:
    """Promptsource's random choice, from the render's own random numbers."""
    budget: Budget = context[_BUDGET]
    return budget.random.choice(items)


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    """Promptsource's filter: the items that occur most often, first seen first."""
    counts = Counter(items)
    most = max(counts.values(), default=0)
    return [item for item, count in counts.items() if count == most]


@jinja2.pass_context
def _replace(context: Context, text: Any, old: Any, new: Any, count: int | None = None) -> str:
    whole, old, new = str(text), str(old), str(new)
    context[_BUDGET].pay(whole.count(old) * len(new))
    return whole.replace(old, new, -1 if count is None else count)


@jinja2.pass_context
def _join(context: Context, items: Any, separator: Any = "", attribute: Any = None) -> str:
    items, separator = list(_steps(items, context[_BUDGET])), str(separator)
    context[_BUDGET].pay(len(items) * len(separator))
    return str(do_join(context.eval_ctx, items, separator, attribute))


@jinja2.pass_context
def _loop(context: Context, items: Any) -> Iterator[Any]:
    return _steps(items, context[_BUDGET])


@jinja2.pass_context
def _output(context: Context, value: Any) -> Any:
    return _paid(value, context[_BUDGET])


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=jinja2.StrictUndefined, finalize=_output, cache_size=0)
    own: dict[str, Callable[..., Any]] = {
        "choice": _choice,
        "random": _choice,
        "most_frequent": _most_frequent,
        "zip": zip,
        "replace": _replace,
        "join": _join,
    }
    filters = {name: environment.filters[name] for name in _FILTERS} | own
    environment.filters = {name: _metered(function) for name, function in filters.items()}
    environment.filters |= {_LOOP: _loop, _KEEP: _metered(lambda value: value)}
    environment.globals = {
        name: environment.globals[name] for name in ("range", "namespace", "dict")
    } | {"zip": zip}
    return environment


def _refuse(tree: nodes.Template) -> None:
    """Refuse statements that could not be metered simply."""
    for node in tree.find_all(nodes.Stmt):
        if not isinstance(node, _STATEMENTS) or getattr(node, "recursive", False):
            kind = "recursive for" if isinstance(node, nodes.For) else type(node).__name__
            raise jinja2.TemplateSyntaxError(
                f"'{kind}' is not allowed; a template may use for, if and set", node.lineno
            )


def _meter(node: nodes.Node) -> None:
    """Rewrite a tree: its loops pay per step, its new lists and joined texts for their size."""
    for child in node.iter_child_nodes():
        _meter(child)
    if isinstance(node, nodes.For):
        node.iter = _filtered(node.iter, _LOOP)
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_bounded(item) for item in value])
        else:
            setattr(node, name, _bounded(value))


def _bounded(value: Any) -> Any:
    if isinstance(value, nodes.Concat):
        return _filtered(nodes.List(value.nodes, lineno=value.lineno), "join")
    if isinstance(value, _BUILDERS) and getattr(value, "ctx", "load") == "load":
        return _filtered(value, _KEEP)
    return value


def _filtered(value: Any, name: str) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)
