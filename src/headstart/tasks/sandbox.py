"""Runs Jinja text from strangers: no files, no private attributes, no endless work. Knows no examples.

Every loop step, call, filter, operator and output is metered by a ``Budget``: the characters it touches
and the processor time since the start. What could only be bounded with many rules (macros, blocks,
includes, padding methods) is refused instead; none of promptsource's 2,085 templates uses it.
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
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

OUTPUT_LIMIT = 200_000
"""Characters a template may render to."""
WORK_LIMIT = 20_000_000
"""Characters a render may touch, a loop step counting as ``_STEP`` of them."""
SECONDS_LIMIT = 1.0
"""Processor time a render may take."""

_STEP = 20
_BUDGET = "_budget"
_STATEMENTS = (nodes.Template, nodes.Output, nodes.For, nodes.If, nodes.Assign)
_BUILDERS = (nodes.List, nodes.Dict, nodes.Tuple)
_METHODS = frozenset(
    "append capitalize casefold count cycle endswith find get index isalnum isalpha isdigit islower "
    "isnumeric isspace istitle isupper items join keys lower lstrip partition removeprefix "
    "removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip "
    "swapcase title upper values".split()
)
_FILTERS = (
    "abs capitalize d default dictsort first float format int items join last length list lower map "
    "max min reject rejectattr replace reverse round select selectattr sort string sum title trim "
    "truncate unique upper wordcount"
).split()
_WIDTH = re.compile(r"\d{4}|\*")


class LimitError(Exception):
    """A template asks for more work than a template may."""


@dataclass
class Budget:
    """What is left of one render's work, and the random numbers its ``choice`` filter draws.

    Example:
        >>> budget = Budget(Random(0))
        >>> budget.spend("some text")
        >>> budget.left == WORK_LIMIT - _STEP - 9
        True
    """

    random: Random
    left: int = WORK_LIMIT
    deadline: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock, which counts this thread's processor time: a busy machine harms nobody."""
        self.deadline = time.thread_time() + SECONDS_LIMIT

    def spend(self, *values: object) -> None:
        """Pay for one step that touches ``values``.

        Raises:
            LimitError: The work or the time is used up.

        Example:
            >>> Budget(Random(0)).spend("some text")
        """
        self.left -= _STEP + sum(_weight(value) for value in values)
        if self.left < 0 or time.thread_time() > self.deadline:
            raise LimitError("it does too much work; shorten its loops and texts")

    def spend_product(self, left: object, right: object) -> None:
        """Pay for a result as large as ``left`` times ``right``.

        Raises:
            LimitError: The work or the time is used up.

        Example:
            >>> Budget(Random(0)).spend_product("a", "bc")
        """
        self.left -= _weight(left) * _weight(right)
        self.spend()


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
    return Program(variables, jinja2.Template.from_code(environment, code, dict(environment.globals)))


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
            total += item.bit_length() // 3
        total += 1
    return total


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, with methods of values named one by one and operators metered."""

    intercepted_binops = frozenset("+ * % **".split())

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and (
            not callable(value) or attr in _METHODS
        )

    def wrap_str_format(self, value: Any) -> None:
        """Leave ``str.format`` to ``is_safe_attribute``, which refuses it: it pads without bound."""

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget: Budget = __context[_BUDGET]
        owner = getattr(__obj, "__self__", None)
        budget.spend(owner, args, kwargs)
        if getattr(__obj, "__name__", "") in ("replace", "join"):
            budget.spend_product(owner, args[-1:])
        return _paid(super().call(__context, __obj, *args, **kwargs), budget)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget: Budget = context[_BUDGET]
        budget.spend(left, right)
        if operator == "%" and isinstance(left, str):
            _check_format(left, budget, right)
        elif operator == "*" and not _are_numbers(left, right):
            budget.left -= _repeated(left, right)
            budget.spend()
        elif operator == "**" and not (_are_numbers(left, right) and abs(right) <= 1000):
            raise LimitError(f"it raises a number to the power {right!r}")
        return super().call_binop(context, operator, left, right)


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _repeated(left: Any, right: Any) -> int:
    """Weigh ``"ab" * 3`` or ``3 * [1]``."""
    if isinstance(left, int):
        left, right = right, left
    return _weight(left) * max(right, 0) if isinstance(right, int) else 0


def _check_format(pattern: str, budget: Budget, values: object) -> None:
    if _WIDTH.search(pattern):
        raise LimitError("it formats to a width of over 999 characters, or to a variable one")
    budget.spend_product(pattern, values)


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
        if function.__name__ in ("do_replace", "sync_do_join", "do_join"):
            budget.spend_product(args[0], [*args[1:], *kwargs.values()])
        if function.__name__ == "do_format":
            _check_format(str(args[0]), budget, [*args[1:], *kwargs.values()])
        first = {"context": [context], "eval_context": [context.eval_ctx]}
        first["environment"] = [context.environment]
        return _paid(function(*first.get(kind or "", []), *args, **kwargs), budget)

    return jinja2.pass_context(filtered)


@jinja2.pass_context
def _choice(context: Context, items: Sequence[Any]) -> Any:
    """promptsource's random choice, from the render's own random numbers."""
    budget: Budget = context[_BUDGET]
    return budget.random.choice(items)


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    """promptsource's filter: the items that occur most often, first seen first."""
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]


@jinja2.pass_context
def _loop(context: Context, items: Any) -> Iterator[Any]:
    return _steps(items, context[_BUDGET])


@jinja2.pass_context
def _output(context: Context, value: Any) -> Any:
    return _paid(value, context[_BUDGET])


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=jinja2.StrictUndefined, finalize=_output, cache_size=0)
    own = {"choice": _choice, "random": _choice, "most_frequent": _most_frequent, "zip": zip}
    filters = {name: environment.filters[name] for name in _FILTERS} | own
    environment.filters = {name: _metered(function) for name, function in filters.items()}
    environment.filters |= {_LOOP: _loop, _KEEP: _metered(lambda value: value)}
    environment.globals = {
        name: environment.globals[name] for name in ("range", "namespace", "dict")
    } | {"zip": zip}
    return environment


_LOOP = "loop steps"
_KEEP = "as it is"


def _refuse(tree: nodes.Template) -> None:
    """Refuse statements that could not be metered simply."""
    for node in tree.find_all(nodes.Stmt):
        if not isinstance(node, _STATEMENTS) or getattr(node, "recursive", False):
            kind = "recursive for" if isinstance(node, nodes.For) else type(node).__name__
            raise jinja2.TemplateSyntaxError(
                f"'{kind}' is not allowed; a template may use for, if and set", node.lineno
            )


def _meter(node: nodes.Node) -> None:
    """Rewrite the tree below a node: loops pay per step, new lists and joined texts for their size."""
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
        return _filtered(nodes.List(value.nodes, "load", lineno=value.lineno), "join")
    if isinstance(value, _BUILDERS) and getattr(value, "ctx", "load") == "load":
        return _filtered(value, _KEEP)
    return value


def _filtered(value: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)
