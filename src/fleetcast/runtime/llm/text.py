"""Text to tokens and back: the tokenizer of a Hugging Face folder, and text that comes out piece by piece.

`Text` encodes and knows the chat template; a `Writer` makes one answer's tokens into text, never half a character, and
finds stop strings wherever tokens begin and end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fleetcast.base.errors import MissingExtra, SpecError
from fleetcast.base.files import read_text

try:
    import tokenizers
except ImportError:
    raise MissingExtra("tokenizers", "torch") from None

TEMPLATE_LIMIT: Final = 1 << 20
"""Bytes of a chat template."""
_HALF: Final = "\ufffd"
_WAIT, _WINDOW, _TAIL = 3, 64, 5  # a character has at most 4 bytes, hence 4 tokens, the last of which completes it
_HINT: Final = "Take tokenizer.json, tokenizer_config.json and config.json from the same repository"


class Text:
    """The tokenizer of a model.

    Attributes:
        ends: ids of the tokens that end an answer.
        special: ids of the tokens that are no part of a text, though they have a name.
        template: the chat template, or None where the model has none.
    """

    def __init__(self, tokenizer: Any, *, ends: Sequence[int] = (), template: Any = None) -> None:
        self._tokenizer, self.ends, self.template = tokenizer, tuple(ends), template
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._bytes = _byte_letters()
        self.special = frozenset(id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the tokens of a text.

        Args:
            text: to encode.
            special: add what the tokenizer puts around a text, such as its first token.

        Raises:
            SpecError: no Unicode text, such as half of a surrogate pair.
        """
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=special).ids)
        except (TypeError, UnicodeError):
            raise SpecError("prompt", "is not Unicode text", limit="no lone surrogates") from None

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def chat(self, messages: Sequence[Mapping[str, Any]], words: Mapping[str, Any] | None = None) -> list[int]:
        """Returns the tokens of a conversation, up to where the assistant speaks; ``words`` go to the template.

        Raises:
            SpecError: the model has no chat template, or it refuses or fails.
        """
        if self.template is None:
            raise SpecError("messages", "cannot be sent: the model has no chat template", hint="Use /v1/completions")
        return self.encode(self.template.render(messages, words), special=False)

    def piece(self, token: int) -> tuple[str, bytes]:
        """Returns a token as text, special ones too, and its bytes, which alone may be no whole character."""
        text = str(self._tokenizer.decode([token], skip_special_tokens=False))
        if _HALF not in text:
            return text, text.encode()
        name = str(self._tokenizer.id_to_token(token) or "")
        if len(name) == 6 and name.startswith("<0x"):
            return text, bytes([int(name[3:5], 16)])
        if all(c in self._bytes for c in name):
            return text, bytes(self._bytes[c] for c in name)
        return text, text.encode()


class Decoder:
    """Makes one answer's tokens into text as they come.

    What has been given out is never changed by what comes later: the end of a character that is not whole yet is held
    back. Pieces joined are the text of all tokens.

    Args:
        text: the tokenizer.
        prompt: what the answer continues: a first word keeps its space.
    """

    def __init__(self, text: Text, prompt: Sequence[int] = ()) -> None:
        self._decode = text.decode
        self._ids = list(prompt[-_TAIL:])
        before = self._decode(self._ids)
        if not before or before.endswith(_HALF):
            self._ids, before = [], ""
        self._said = len(before)
        self._read = len(self._ids)

    def feed(self, token: int) -> str:
        """Returns what can be said after this token: "" while a character is not whole."""
        self._ids.append(token)
        text = self._decode(self._ids)
        whole = len(text)
        if text.endswith(_HALF):
            # bytes that are still no character after so many tokens never become one, except the last of them
            late = len(self._ids) - self._read > _WAIT
            whole = len(text) - 1 if late else len(text.rstrip(_HALF))
        out = text[self._said : whole]
        self._said = max(self._said, whole)
        if whole == len(text):
            self._forget(self._ids[self._read :], 0)
        elif len(self._ids) > _WINDOW:
            self._forget(self._ids[-_WAIT:], 1)
        return out

    def flush(self) -> str:
        """Returns what is held back, at the end of the answer."""
        out = self._decode(self._ids)[self._said :]
        self._said += len(out)
        return out

    def _forget(self, kept: list[int], held: int) -> None:
        """Drops tokens that no later text depends on."""
        text = self._decode(kept)
        if text or len(self._ids) > _WINDOW:
            self._ids, self._said = kept, max(0, len(text) - held)
        self._read = len(self._ids)


class Stops:
    """Finds stop strings in a text that comes in pieces.

    Args:
        strings: none of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """Returns what can be said, and whether a stop string was found: the text before it is then all there is."""
        text = self._held + piece
        found = [at for s in self._strings if (at := text.find(s)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        held = max((_overlap(text, s) for s in self._strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def flush(self) -> str:
        """Returns what was held back as the possible beginning of a stop string."""
        out, self._held = self._held, ""
        return out


class Writer:
    """One answer: tokens in, text out, until a stop string.

    Args:
        text: the tokenizer.
        prompt: what the answer continues.
        stop: stop strings.
        ends: ids that end the answer and have no text.
    """

    def __init__(self, text: Text, prompt: Sequence[int], stop: Sequence[str] = (), ends: Sequence[int] = ()) -> None:
        self._decoder, self._stops, self._ends = Decoder(text, prompt), Stops(stop), frozenset(ends)

    def feed(self, token: int, last: bool) -> tuple[str, bool]:
        """Returns what can be said after a token, and whether a stop string ends the answer here.

        Args:
            token: its id.
            last: none comes after it.
        """
        piece = "" if token in self._ends else self._decoder.feed(token)
        if last:
            piece += self._decoder.flush()
        said, stopped = self._stops.feed(piece)
        if last and not stopped:
            said += self._stops.flush()
        return said, stopped


def open_text(folder: str | Path, vocab: int) -> Text:
    """Returns the tokenizer of a Hugging Face folder.

    Args:
        folder: holds tokenizer.json and, for chats, a template in tokenizer_config.json or chat_template.jinja.
        vocab: tokens that the model knows.

    Raises:
        SpecError: no tokenizer.json, a damaged file, or tokens that the model does not know.
        MissingExtra: tokenizers or jinja2 is not installed.
    """
    folder = Path(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        hint = "Fetch it from the model's repository, beside config.json"
        raise SpecError(str(path), "is not there", limit="text needs the model's tokenizer", hint=hint)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(read_text(path))
    except SpecError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise SpecError(str(path), f"is not a tokenizer: {error}", hint=_HINT) from None
    count = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if count > vocab:
        limit = f"the {vocab} that config.json names"
        raise SpecError(str(path), "has more tokens than the model", value=count, limit=limit, hint=_HINT)
    settings = _table(folder / "tokenizer_config.json")
    return Text(tokenizer, ends=_ends(folder, settings, tokenizer, vocab), template=_template(folder, settings))


def _ends(folder: Path, settings: Mapping[str, Any], tokenizer: Any, vocab: int) -> list[int]:
    """Returns the tokens that end an answer, of the first file that names any."""
    for name in ("generation_config.json", "config.json"):
        value = _table(folder / name).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < vocab for i in ids):
            where, limit = f"{folder / name}.eos_token_id", f"ids from 0 to {vocab - 1}"
            raise SpecError(where, "cannot be", value=value, limit=limit, hint=_HINT)
        return ids
    found = tokenizer.token_to_id(_word(settings.get("eos_token")))
    return [] if found is None else [found]


def _template(folder: Path, settings: Mapping[str, Any]) -> Any:
    path = folder / "chat_template.jinja"
    if path.is_file():
        source: Any = read_text(path, limit=TEMPLATE_LIMIT)
    else:
        path = folder / "tokenizer_config.json"
        source = settings.get("chat_template")
        if isinstance(source, list):  # several by name
            named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
            source = named.get("default")
    if not source:
        return None
    if not isinstance(source, str) or len(source) > TEMPLATE_LIMIT:
        limit = f"text of at most {TEMPLATE_LIMIT:,} bytes"
        raise SpecError(f"{path}.chat_template", "cannot be", value=type(source).__name__, limit=limit, hint=_HINT)
    from fleetcast.runtime.llm.chat import Template

    words = {name: _word(settings.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return Template(source, str(path), words)


def _word(value: Any) -> str:
    """Returns a special token's text: files have it as it is or in a table."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _table(path: Path) -> Mapping[str, Any]:
    """Returns a JSON file's table; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        table = json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise SpecError(str(path), "is not JSON", hint="Fetch it again") from None
    if not isinstance(table, dict):
        raise SpecError(str(path), "is not a table", value=type(table).__name__, limit="a JSON object", hint=_HINT)
    return table


def _overlap(text: str, string: str) -> int:
    """Returns how many last characters of a text are the first of a string, not all of it."""
    for n in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:n]):
            return n
    return 0


def _byte_letters() -> dict[str, int]:
    """Returns the byte of each letter that byte-level vocabularies write it as.

    Radford et al., "Language Models are Unsupervised Multitask Learners", 2019: printable bytes stand for themselves,
    the others for the letters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
