"""Pickles read as data: one opcode after the other, by code of ours that imports nothing and calls nothing of theirs.

The opcodes are those of CPython's Lib/pickletools.py. What classes and functions a file names is compared with the
table in `pickle_names`; anything else ends the reading.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from fpn.interop.pickle_names import check_key, fill_array, find_name
from fpn.interop.pickle_parts import (
    ArrayRef,
    Attributes,
    DtypeRef,
    Known,
    LongText,
    RefusedFileError,
    Skipped,
    fail,
    printable,
)

# Opcodes of one pickle. Large checkpoints with their optimizers have a quarter.
MOST_STEPS = 400_000
# Letters of a text that is decoded at once; bytes that are copied; bytes of a whole number.
_TEXT, _COPIED, _DIGITS = 1_048_576, 4096, 16

Persistent = Callable[[Any], Any]


def read_pickle(data: memoryview, start: int = 0, *, persistent: Persistent | None = None) -> tuple[Any, int]:
    """One pickle.

    Args:
        data: the bytes of a file. Long texts and bytes in the result are parts of it.
        start: where the pickle begins.
        persistent: what stands for an object that lies elsewhere; None: there are none.

    Returns:
        Its value, in which tensors and arrays are still the classes of `pickle_parts`, and where it ends.

    Raises:
        RefusedFileError: it is damaged, too large, or refers to something that is not data.
    """
    try:
        return _Machine(data, start, persistent).run()
    except (ValueError, OverflowError, struct.error) as error:  # of numbers and texts that are none
        raise RefusedFileError(f"its pickle is damaged ({printable(error)})") from None


class _Machine:
    def __init__(self, data: memoryview, start: int, persistent: Persistent | None) -> None:
        self.data, self.position, self.persistent = data, start, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        for _ in range(MOST_STEPS):
            code = self.take(1)[0]
            if code == _STOP:
                return self.pop(), self.position
            step = _STEPS.get(code)
            if step is None:
                raise RefusedFileError(
                    f"at byte {self.position - 1} it is no pickle that is known (opcode 0x{code:02x})"
                )
            step(self)
        raise RefusedFileError(f"its pickle has more than {MOST_STEPS} opcodes")

    # --- bytes of the file

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            raise RefusedFileError(f"it ends at byte {len(self.data)} in the midst of a pickle: it is not whole")
        part = self.data[self.position : end]
        self.position = end
        return part

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        size, found = 256, -1
        while found < 0:
            part = bytes(self.data[self.position : self.position + size])
            found = part.find(b"\n")
            if found < 0 and len(part) < size:
                raise RefusedFileError(f"at byte {self.position} a line of its pickle does not end: it is not whole")
            size *= 2
        self.position += found + 1
        return part[:found]

    # --- stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise RefusedFileError(f"at byte {self.position - 1} its pickle takes what is not there")
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise RefusedFileError(f"at byte {self.position - 1} its pickle takes what is not there")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def remember(self, place: int) -> None:
        self.memo[place] = self.top()

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise RefusedFileError(f"at byte {self.position - 1} its pickle refers to what is not there")
        self.stack.append(self.memo[place])

    # --- containers

    def put_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Skipped):
            return
        if not isinstance(target, dict) or len(pairs) % 2:
            raise RefusedFileError(f"at byte {self.position - 1} its pickle puts items into what is no mapping")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[check_key(key)] = value

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Skipped):
            return
        if not isinstance(target, list):
            raise RefusedFileError(f"at byte {self.position - 1} its pickle appends to what is no list")
        target.extend(values)

    # --- names

    def name(self, module: Any, name: Any) -> None:
        known = find_name(module, name)
        self.push(known if known.value is None else known.value)

    def call(self, args: Any, function: Any) -> None:
        if isinstance(function, Skipped):
            self.push(function)
            return
        if not isinstance(function, Known) or not isinstance(args, tuple):
            raise RefusedFileError(f"at byte {self.position - 1} its pickle calls what is no function")
        if function.skipped and function.make is None:
            self.push(Skipped(function.name))
            return
        if function.make is None:
            raise RefusedFileError(f"its pickle calls {printable(function.name)}")
        self.push(function.make(args))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, ArrayRef):
            fill_array(target, state)
        elif isinstance(target, DtypeRef):
            _set_order(target, state)
        elif isinstance(target, Attributes) and isinstance(state, dict):
            target.update((check_key(key), value) for key, value in state.items())
        elif not isinstance(target, dict | Skipped):  # of a mapping, its attributes are left out
            raise RefusedFileError(f"at byte {self.position - 1} its pickle gives a state to what has none")

    def persist(self) -> None:
        told = self.pop()
        if self.persistent is None:
            raise RefusedFileError("its pickle refers to an object outside of it")
        self.push(self.persistent(told))


def _set_order(target: DtypeRef, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|") or state[2] is not None:
        raise RefusedFileError("an array of records: only plain numbers are read")
    target.order = state[1]


def _text(machine: _Machine, length: int) -> None:
    raw = machine.take(length)
    machine.push(LongText(raw) if length > _TEXT else LongText(raw).text())


def _bytes(machine: _Machine, length: int) -> None:
    raw = machine.take(length)
    machine.push(raw if length > _COPIED else bytes(raw))


def _old_text(machine: _Machine, length: int) -> None:
    """Python 2's text, or the bytes of its arrays, which are longer than texts."""
    raw = machine.take(length)
    machine.push(raw if length > _COPIED else str(raw, "latin1"))


def _quoted(machine: _Machine) -> None:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise RefusedFileError(f"at byte {machine.position - 1} a text of its pickle is not in quotes")
    machine.push(codecs.escape_decode(line[1:-1])[0].decode("latin1"))


def _integer_line(machine: _Machine) -> None:
    line = machine.line()
    booleans = {b"00": False, b"01": True}
    machine.push(booleans[line] if line in booleans else _integer(line.removesuffix(b"L")))


def _integer(line: bytes) -> int:
    return int(line) if len(line) <= 2 * _DIGITS else fail(f"a whole number of {len(line)} digits")


def _long(machine: _Machine, length: int) -> None:
    if not 0 <= length <= _DIGITS:
        raise RefusedFileError(f"a whole number of {length} bytes")
    machine.push(int.from_bytes(machine.take(length), "little", signed=True))


def _tuple(machine: _Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.push(tuple(reversed(values)))


def _dictionary(machine: _Machine) -> None:
    pairs = machine.pop_mark()
    machine.push({})
    machine.put_items(pairs)


def _new_object(machine: _Machine, *, named: bool) -> None:
    if named and machine.pop() != {}:
        raise RefusedFileError("its pickle makes an object with named arguments")
    args = machine.pop()
    machine.call(args, machine.pop())


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _protocol(machine: _Machine) -> None:
    number = machine.take(1)[0]
    if number > 5:
        raise RefusedFileError(f"a pickle of protocol {number}; known are those up to 5")


_STOP = ord(".")
_STEPS: dict[int, Callable[[_Machine], Any]] = {
    0x80: _protocol,
    0x95: lambda m: m.take(8),  # a frame's length
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): lambda m: m.pop(),
    ord("1"): lambda m: m.pop_mark(),
    ord("2"): lambda m: m.push(m.top()),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): _integer_line,
    ord("L"): lambda m: m.push(_integer(m.line().removesuffix(b"L"))),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: lambda m: _long(m, m.number("<B")),
    0x8B: lambda m: _long(m, m.number("<i")),
    ord("F"): lambda m: m.push(float(m.line())),
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("S"): _quoted,
    ord("T"): lambda m: _old_text(m, m.number("<I")),
    ord("U"): lambda m: _old_text(m, m.number("<B")),
    ord("V"): lambda m: m.push(str(m.line(), "raw-unicode-escape")),
    ord("X"): lambda m: _text(m, m.number("<I")),
    0x8C: lambda m: _text(m, m.number("<B")),
    0x8D: lambda m: _text(m, m.number("<Q")),
    ord("B"): lambda m: _bytes(m, m.number("<I")),
    ord("C"): lambda m: _bytes(m, m.number("<B")),
    0x8E: lambda m: _bytes(m, m.number("<Q")),
    0x96: lambda m: _bytes(m, m.number("<Q")),
    ord("]"): lambda m: m.push([]),
    ord("l"): lambda m: m.push(m.pop_mark()),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_mark()),
    # Sets are read as lists: their elements need not be compared.
    0x8F: lambda m: m.push([]),
    0x90: lambda m: m.append(m.pop_mark()),
    0x91: lambda m: m.push(m.pop_mark()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: _tuple(m, 1),
    0x86: lambda m: _tuple(m, 2),
    0x87: lambda m: _tuple(m, 3),
    ord("}"): lambda m: m.push({}),
    ord("d"): _dictionary,
    ord("s"): lambda m: m.put_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.put_items(m.pop_mark()),
    ord("p"): lambda m: m.remember(_integer(m.line())),
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("g"): lambda m: m.recall(_integer(m.line())),
    ord("h"): lambda m: m.recall(m.number("<B")),
    ord("j"): lambda m: m.recall(m.number("<I")),
    ord("c"): lambda m: m.name(str(m.line(), "utf-8"), str(m.line(), "utf-8")),
    0x93: _stack_global,
    ord("R"): lambda m: m.call(m.pop(), m.pop()),
    0x81: lambda m: _new_object(m, named=False),
    0x92: lambda m: _new_object(m, named=True),
    ord("b"): _Machine.build,
    ord("Q"): _Machine.persist,
}
