"""Broken and hostile variants of valid input, each a function of a seed number: byte by byte, and by structure."""

from __future__ import annotations

import io
import json
import lzma
import random
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.seeds import CUT

Mutation = Callable[[random.Random, bytes], bytes]

# Nothing grows beyond this: the question is what a reader does, not how long a long file takes.
# The smallest detector has 350 KiB of weights.
LONGEST = {"models": 1 << 19, "results": 1 << 18}
USUALLY_LONGEST = 1 << 16

# Values that stand where others were expected.
EXTREMES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63,
    -(2**63), 10**30, 10**400, 0.5, -0.0, 1e-320, 1e38, 1e39, 1e308, -1e308, float("nan"), float("inf"), -float("inf"),
    "", " ", "0", "nan", "..", "../..", "../../../etc/passwd", "/etc/passwd", "/dev/zero", "C:\\x.png", "..\\..\\x.png",
    "a\0b", "\ud800", "\udc80", "a" * 300, "a/" * 400, "é", "\u202e", "\x1b[2J", "a.png", "a.png/..", "./a.png",
    "images/../../a.png", "//a.png", "hf-hub:x/y", "resnet50", "9" * 5000, "1e999", "\uff11", "\xb2", "0x10", "1_0",
    [], {}, [[]], [None], [{}], {"": ""}, [0] * 1000, [[0, 0, 1, 1, 2, 2]], {"size": [37, 53], "counts": [1961]},
    {"size": [37, 53], "counts": "0" * 50}, {"size": [2**31, 2**31], "counts": [2**62]},
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")
_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(kind: str, seeds: Sequence[bytes], dice: random.Random) -> bytes:
    """One input for a reader: a seed, changed one to five times."""
    data = dice.choice(seeds)
    ways = WAYS[kind]
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5))):
        data = dice.choice(ways)(dice, data) if dice.random() < 0.9 else _splice(dice, data, dice.choice(seeds))
    return data[: LONGEST.get(kind, USUALLY_LONGEST)]


# --- byte by byte ---------------------------------------------------------------------------------------------------


def _flip(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(dice.choice((1, 1, 2, 8))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _replace(dice: random.Random, data: bytes) -> bytes:
    start, end = _range(dice, data)
    filling = dice.choice((b"\0", b"\xff", b" ", b"9", b"/", b"\n", bytes([dice.randrange(256)])))
    return data[:start] + filling * (end - start) + data[end:]


def _cut_off(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _leave_out(dice: random.Random, data: bytes) -> bytes:
    start, end = _range(dice, data)
    return data[:start] + data[end:]


def _repeat(dice: random.Random, data: bytes) -> bytes:
    start, end = _range(dice, data)
    return data[:end] + data[start:end] * dice.choice((1, 2, 50)) + data[end:]


def _insert(dice: random.Random, data: bytes) -> bytes:
    place = dice.randrange(len(data) + 1)
    return data[:place] + dice.randbytes(dice.choice((1, 2, 4, 16))) + data[place:]


def _set_number(dice: random.Random, data: bytes) -> bytes:
    """A binary field of one to eight bytes gets a value at some border."""
    width = dice.choice((1, 2, 4, 8))
    if len(data) < width:
        return data
    # Headers are at the front: look there more often.
    place = dice.randrange(min(len(data) - width + 1, dice.choice((64, 1 << 30))))
    value = (dice.choice(_INTERESTING) + dice.choice((-1, 0, 0, 1))) % (1 << 8 * width)
    order = dice.choice(("little", "big"))
    return data[:place] + value.to_bytes(width, order) + data[place + width :]  # type: ignore[arg-type]


def _splice(dice: random.Random, data: bytes, other: bytes) -> bytes:
    return _cut_off(dice, data) + other[dice.randrange(len(other) + 1) :]


def _range(dice: random.Random, data: bytes) -> tuple[int, int]:
    start = dice.randrange(len(data) + 1)
    return start, min(len(data), start + dice.choice((1, 2, 4, 16, 64, 1024)))


# --- text -----------------------------------------------------------------------------------------------------------


def _text_of(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text.encode("utf-8", "surrogatepass")


def _other_token(dice: random.Random, data: bytes) -> bytes:
    """A number or word becomes one of `EXTREMES`, or another word of the same input."""
    found = list(dice.choice((_NUMBER, _WORD)).finditer(data))
    if not found:
        return data
    at = dice.choice(found)
    new = _text_of(dice.choice(EXTREMES)) if dice.random() < 0.8 else dice.choice(found).group()
    return data[: at.start()] + new + data[at.end() :]


def _move_lines(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
    way = dice.randrange(3)
    if way == 0:
        lines[one], lines[two] = lines[two], lines[one]
    elif way == 1:
        lines.insert(two, lines[one])
    else:
        del lines[one]
    return b"\n".join(lines)


# --- JSON -----------------------------------------------------------------------------------------------------------


def _json(dice: random.Random, data: bytes) -> bytes:
    try:
        return json.dumps(_changed(dice, json.loads(data))).encode()
    except (ValueError, RecursionError):  # no JSON any more, or nested too deeply to be written
        return _other_token(dice, data)


def _changed(dice: random.Random, tree: Any) -> Any:
    """A JSON tree with one node replaced, removed, doubled, renamed, nested or swapped with another."""
    places = list(_places(tree))
    if not places:
        return dice.choice(EXTREMES)
    holder, key = dice.choice(places)
    way = dice.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, list):
        holder.extend([holder[key]] * dice.choice((1, 3, 300)))
    elif way == 1:
        holder[str(dice.choice(EXTREMES))[:50]] = holder.pop(key)
    elif way == 2:
        other, place = dice.choice(places)
        holder[key] = json.loads(json.dumps(other[place]))
    elif way == 3:
        holder[key] = _nested(holder[key], dice.choice((1, 10, 300)))
    else:
        holder[key] = dice.choice(EXTREMES)
    return tree


def _places(tree: Any) -> Any:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys: Any = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            yield node, key
            waiting.append(node[key])


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _deep(dice: random.Random, data: bytes) -> bytes:
    opening = dice.choice((b"[", b'{"a":', b"<a>", b"[["))
    return _insert_at(dice, data, opening * dice.choice((50, 1000, 10_000)))


def _insert_at(dice: random.Random, data: bytes, what: bytes) -> bytes:
    place = dice.randrange(len(data) + 1)
    return data[:place] + what + data[place:]


# --- XML ------------------------------------------------------------------------------------------------------------

_ELEMENT = re.compile(rb"<(\w+)>([^<]*)</\1>")
_TAG = re.compile(rb"</?\w+>")
_DECLARATIONS = (
    b'<!DOCTYPE annotation [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
    b'<!DOCTYPE annotation SYSTEM "file:///etc/passwd">',
    b'<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    b'<?xml version="1.0" encoding="utf-16"?>',
    b'<?xml version="1.0" encoding="utf-7"?>',
    b'<?xml version="1.0" encoding="no-such"?>',
    b"<![CDATA[ ]]>",
    b"&amp;&#0;&#x110000;&lol;",
)


def _element_text(dice: random.Random, data: bytes) -> bytes:
    found = list(_ELEMENT.finditer(data))
    if not found:
        return data
    start, end = dice.choice(found).span(2)
    return data[:start] + _text_of(dice.choice(EXTREMES)) + data[end:]


def _element_itself(dice: random.Random, data: bytes) -> bytes:
    found = list(_ELEMENT.finditer(data))
    if not found:
        return data
    at = dice.choice(found)
    copies = dice.choice((0, 2, 200))
    return data[: at.start()] + at.group() * copies + data[at.end() :]


def _tags(dice: random.Random, data: bytes) -> bytes:
    found = list(_TAG.finditer(data))
    if not found:
        return data
    at, other = dice.choice(found), dice.choice(found)
    return data[: at.start()] + dice.choice((b"", other.group(), other.group() * 2)) + data[at.end() :]


def _declare(dice: random.Random, data: bytes) -> bytes:
    what = dice.choice(_DECLARATIONS)
    return what + data if dice.random() < 0.6 else _insert_at(dice, data, what)


# --- YAML -----------------------------------------------------------------------------------------------------------

_YAML = (
    b"&a ", b"*a", b"*b", b"!!python/object/apply:os.system ", b"!!binary ", b"? ", b"<<: ", b"- ", b"{", b"[", b"|\n",
    b"%YAML 9.9\n", b"---\n", b"\t", b"\"\\ud800\"", b'"\\0"', b"&a [*a]", b"&a [1,1,1,1]\nb: &b [*a,*a,*a,*a]",
)  # fmt: skip


def _yaml(dice: random.Random, data: bytes) -> bytes:
    return _insert_at(dice, data, dice.choice(_YAML))


def _part(mutation: Mutation) -> Mutation:
    """Change one of the files that an input consists of."""

    def changed(dice: random.Random, data: bytes) -> bytes:
        parts = data.split(CUT)
        number = dice.randrange(len(parts))
        parts[number] = mutation(dice, parts[number])
        return CUT.join(parts)

    return changed


# --- model files ----------------------------------------------------------------------------------------------------


def _model_header(dice: random.Random, data: bytes) -> bytes:
    """Change the JSON of a .safetensors file, in a tenth of cases without correcting its length."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data) - 8:
        return _set_number(dice, data)
    header = _json(dice, data[8 : 8 + length])
    stated = length if dice.random() < 0.1 else len(header)
    return stated.to_bytes(8, "little") + header + data[8 + length :]


def _recipe(dice: random.Random, data: bytes) -> bytes:
    """Change the recipe inside of that JSON, which is JSON in a string."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        header["__metadata__"]["fpn"] = _json(dice, header["__metadata__"]["fpn"].encode()).decode()
        text = json.dumps(header).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return _model_header(dice, data)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


# --- images -------------------------------------------------------------------------------------------------------


def _png_field(dice: random.Random, data: bytes) -> bytes:
    """Change bytes within a chunk of a PNG and set its checksum right, so that the change is believed."""
    if data[:4] != b"\x89PNG":
        return _set_number(dice, data)
    chunks = []
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return data
    number = dice.randrange(len(chunks))
    name, body = chunks[number]
    body = dice.choice((_flip, _set_number, _cut_off, _repeat))(dice, body)
    chunks[number] = (dice.choice((name, name, name, b"iTXt", b"acTL", b"tRNS", b"PLTE", b"IDAT")), body)
    checked = (len(b).to_bytes(4, "big") + n + b + zlib.crc32(n + b).to_bytes(4, "big") for n, b in chunks)
    return data[:8] + b"".join(checked)


# --- pickles --------------------------------------------------------------------------------------------------------

_OPCODES = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"\x8c\x02os\x8c\x06system\x93",
    b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n", b"cdatetime\ndatetime\n", b"(", b")", b"]", b"}",
    b"t", b"l", b"d", b"e", b"u", b"a", b"s", b"0", b"1", b"2", b"R", b"b", b"Q", b"N", b".", b"\x81", b"\x85",
    b"\x86", b"\x87", b"\x88", b"\x8f", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"h\0", b"h\1", b"q\0", b"g0\n",
    b"p0\n", b"K\0", b"J\xff\xff\xff\xff", b"I-1\n", b"L99999999999999999999L\n", b"Fnan\n", b"G\x7f\xf0\0\0\0\0\0\0",
    b"\x8a\x04\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"U\x03abc", b"X\xff\xff\xff\x7f", b"X\3\0\0\0\xff\xfe\xfd",
    b"B\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8, b"\x96\0\0\0\0\0\0\0\0", b"S'\\x'\n", b"V\\ud800\n", b"Pstorage\n",
    b"\x82\1", b"\x95" + b"\xff" * 8, b"\x80\xff",
)  # fmt: skip


def _opcodes(dice: random.Random, data: bytes) -> bytes:
    """A few opcodes where others were, or between them."""
    what = b"".join(dice.choice(_OPCODES) for _ in range(dice.choice((1, 1, 2, 4))))
    if dice.random() < 0.1:
        what *= dice.choice((50, 1000, 10_000))
    place = dice.randrange(len(data) + 1)
    return data[:place] + what + data[place + (len(what) if dice.random() < 0.5 else 0) :]


# --- zips of arrays -------------------------------------------------------------------------------------------------

_HEADERS = (
    b"'descr': '|O'", b"'descr': '<f16'", b"'descr': '<c8'", b"'descr': '<U9'", b"'descr': [('x', '<f4')]",
    b"'descr': '>f4'", b"'shape': ()", b"'shape': (-1, 4)", b"'shape': (1099511627776,)", b"'shape': (2, 2, 2, 2)",
    b"'shape': (100000, 100000, 3)", b"'shape': (0, 9, 3)", b"'fortran_order': 7", b"'more': 1", b"'shape': (True,)",
    b"'shape': (2.5,)", b"'shape': (" + b"1, " * 70 + b")", b"[" * 300,
)  # fmt: skip
_FIELD = re.compile(rb"'\w+': (\([^)]*\)|'[^']*'|\w+)")


def _member(dice: random.Random, data: bytes) -> bytes:
    """Change one array of an .npz and pack it again, so that sums are right and the change is believed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if sum(each.file_size for each in members) > 1 << 20:  # it takes too long to pack it again
                return _set_number(dice, data)
            records = [(each.filename, archive.read(each), each.compress_type) for each in members]
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, OSError, EOFError, RuntimeError):
        return _set_number(dice, data)
    number = dice.randrange(max(len(records), 1))
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for place, (name, body, kind) in enumerate(records):
            if place != number:
                archive.writestr(name, body, kind)
                continue
            way = dice.randrange(6)
            others = (name, "image_0.npy", "image_1", "../x.npy", records[0][0])
            body = _array_header(dice, body) if way < 4 else dice.choice((_flip, _cut_off, _repeat))(dice, body)
            kind = dice.choice((kind, kind, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
            for _ in range(dice.choice((0, 1, 1, 1, 1, 1, 2))):
                archive.writestr(dice.choice(others) if way == 0 else name, body[: 1 << 16], kind)
    return packed.getvalue()


def _array_header(dice: random.Random, data: bytes) -> bytes:
    found = list(_FIELD.finditer(data[:200]))
    if not found:
        return _set_number(dice, data)
    at = dice.choice(found)
    new = dice.choice(_HEADERS)
    changed = data[: at.start()] + new + data[at.end() :]
    if dice.random() < 0.2:  # as long as it says no longer
        return changed
    length = int.from_bytes(data[8:10], "little") + len(changed) - len(data)
    return changed[:8] + (length % 65536).to_bytes(2, "little") + changed[10:]


# --- HDF5 -----------------------------------------------------------------------------------------------------------


def _other_place(dice: random.Random, data: bytes) -> bytes:
    """An address of eight bytes leads somewhere else in the file: round in circles, or into the midst of something."""
    found = [
        at for at in range(0, max(len(data) - 8, 0), 8) if 0 < int.from_bytes(data[at : at + 8], "little") < 1 << 16
    ]
    if not found:
        return _set_number(dice, data)
    at, other = dice.choice(found), dice.choice(found)
    place = dice.choice((data[other : other + 8], dice.randrange(len(data)).to_bytes(8, "little"), b"\xff" * 8))
    return data[:at] + place + data[at + 8 :]


_BYTES: tuple[Mutation, ...] = (_flip, _replace, _cut_off, _leave_out, _repeat, _insert, _set_number)
_TEXT: tuple[Mutation, ...] = (_other_token, _other_token, _other_token, _move_lines, _deep)
WAYS: dict[str, tuple[Mutation, ...]] = {
    "coco": (*_BYTES, *_TEXT, *(_json,) * 20),
    "voc": (*_BYTES, *map(_part, _TEXT), *map(_part, (_element_text,) * 6 + (_element_itself, _tags, _declare) * 2)),
    "yolo": (*_BYTES, *map(_part, _TEXT[:-1] * 4), _part(_deep), *(_part(_yaml),) * 3, *map(_part, _BYTES)),
    "images": (*_BYTES, *(_set_number,) * 5, *(_png_field,) * 3),
    "models": (*_BYTES, *(_model_header,) * 4, *(_recipe,) * 12),
    "checkpoints": (*_BYTES, *(_set_number,) * 4, *(_opcodes,) * 6),
    "results": (*_BYTES, *(_set_number,) * 4, *(_member,) * 12),
    "hdf5": (*_BYTES, *(_set_number,) * 6, *(_other_place,) * 6),
    "settings": (*map(_part, _BYTES), *map(_part, _TEXT * 3), *(_part(_yaml),) * 3),
    "names": (*(_json,) * 20, *_TEXT),
}
