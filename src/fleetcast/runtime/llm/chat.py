"""A conversation as one text: the model's own chat template, in a sandbox with limits.

A template comes with a model's files and is a program. It is rendered by jinja2's immutable sandbox, which keeps it
from Python's insides, and within limits of lines run, of what it writes and of how large a value it makes, since a
sandbox does not keep a program from running for ever.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError

try:
    import jinja2
    from jinja2 import nodes, sandbox
    from jinja2.ext import Extension
    from jinja2.visitor import NodeTransformer
except ImportError:
    raise MissingExtra("jinja2", "torch") from None

LINES: Final = 500_000
"""Lines of a compiled template that one rendering may run."""
WRITTEN: Final = 8 << 20
"""Characters that it may write, and the most elements of a value that it may make."""
_JOIN: Final = "_joined"
_HINT: Final = "Take the template from the model's own repository"


class Template:
    """A chat template.

    Args:
        source: jinja2.
        path: where it came from, for the error that it is none; later ones go to clients and do not name it.
        words: names that it may use beside the messages, such as ``bos_token``.
        clock: for templates that name the day.

    Raises:
        SpecError: not a template.
    """

    def __init__(
        self, source: str, path: str, words: Mapping[str, str], clock: Callable[[], datetime] = datetime.now
    ) -> None:
        self._words = dict(words)
        env = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
        env.filters["tojson"] = _tojson
        env.globals["raise_exception"] = _raise
        env.globals["strftime_now"] = lambda form: clock().strftime(form)
        env.globals[_JOIN] = _joined
        try:
            self._template = env.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise SpecError(path, f"is not a chat template: {error}", hint=_HINT) from None

    def render(self, messages: Sequence[Mapping[str, Any]], words: Mapping[str, Any] | None = None) -> str:
        """Returns the conversation as the model reads it, up to where the assistant is to speak.

        Args:
            messages: each with ``role`` and ``content``.
            words: further names for the template.

        Raises:
            SpecError: the template refuses the messages, goes beyond a limit, or fails.
        """
        left = LINES

        def count(*_: object) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise _TooMuch(f"it runs more than {LINES:,} lines")
            return count

        parts: list[str] = []
        written = 0
        before = sys.gettrace()
        sys.settrace(count)
        try:
            given = dict(words or {}) | {"messages": [dict(m) for m in messages], "add_generation_prompt": True}
            for part in self._template.generate(self._words | given):
                written += len(part)
                if written > WRITTEN:
                    raise _TooMuch(f"it writes more than {WRITTEN:,} characters")
                parts.append(part)
        except _Refused as error:
            hint = "Write the conversation as the model's template wants it"
            raise SpecError("messages", f"are refused by the chat template: {error}", hint=hint) from None
        except _TooMuch as error:
            raise SpecError("chat_template", f"is stopped: {error}", hint=_HINT) from None
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise SpecError("chat_template", f"fails on these messages: {error}", hint=_HINT) from None
        except (RecursionError, MemoryError):
            raise SpecError("chat_template", "is stopped: it goes too deep or too large", hint=_HINT) from None
        finally:
            sys.settrace(before)
        return "".join(parts)


class _Refused(Exception):
    """The template said ``raise_exception``."""


class _TooMuch(Exception):
    """A limit was reached."""


class _Sandbox(sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc]
    """The sandbox with a bound on what operators can make of small values."""

    intercepted_binops = frozenset(["*", "+", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Applies an operator, unless its result would be too large."""
        a, b = _size(left), _size(right)
        if operator == "*" and (a or b):
            _bound(max(a, 1) * max(b, 1) * _times(left) * _times(right))
        elif operator == "+":
            _bound(a + b)
        elif operator == "**" and abs(_times(right)) * max(1, abs(_times(left)).bit_length()) > 4096:
            _bound(WRITTEN + 1)
        elif operator == "%" and isinstance(left, str) and any(c.isdigit() or c == "*" for c in left):
            raise _TooMuch("it formats to a width")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls, unless a method of a text is to pad it far."""
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str):
            for value in args:
                _bound(abs(value) if isinstance(value, int) else 0)
            if getattr(called, "__name__", "") == "replace" and len(args) > 1:
                _bound((len(owner) + 1) * (1 + _size(args[1])))
        return super().call(context, called, *args, **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
        tree = _Joins().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree


class _Joins(NodeTransformer):  # type: ignore[misc]
    """Makes ``a ~ b`` a call, so that its size can be bounded too."""

    def visit_Concat(self, node: Any) -> Any:
        """Returns the call for a concatenation."""
        self.generic_visit(node)
        return nodes.Call(nodes.Name(_JOIN, "load"), list(node.nodes), [], None, None, lineno=node.lineno)


class _Generation(Extension):  # type: ignore[misc]
    """Reads ``{% generation %}``, by which templates mark an answer for training, as what is within."""

    tags: Final = {"generation"}

    def parse(self, parser: Any) -> Any:
        """Returns the body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _joined(*parts: Any) -> str:
    texts = [str(part) for part in parts]
    _bound(sum(map(len, texts)))
    return "".join(texts)


def _bound(size: int) -> None:
    if size > WRITTEN:
        raise _TooMuch(f"it makes a value of more than {WRITTEN:,} elements")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _times(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and abs(value) < 1e18 else 1


def _raise(message: object = "") -> None:
    raise _Refused(str(message))


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=None if indent is None else min(indent, 16))
