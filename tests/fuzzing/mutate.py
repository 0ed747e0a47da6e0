"""Damage: to bytes, to texts of JSON and TOML, and to files that hold their own checksum."""

import re
from collections.abc import Callable
from contextlib import suppress
from random import Random

from odefend.seal import BLANK, MARK, sealed

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
ENDS = 200
"""Bytes at either end of a file, where formats keep what decides everything else; half of the damage is done there."""

VALUES = (
    *(
        "0",
        "-1",
        "1",
        "3.5",
        "1e309",
        "nan",
        "inf",
        "-0.0",
        "18446744073709551616",
        "9" * 400,
        "true",
        "null",
        "",
        "[]",
        "{}",
    ),
    *(
        '""',
        '"../../x"',
        '"/etc/passwd"',
        '"\\u0000"',
        '"\\u001b[31m"',
        '"' + "x" * 5000 + '"',
        '"$x"',
        "[1, 2]",
        '{"a" = 1}',
    ),
    *(
        "[" * 900 + "]" * 900,
        "[" * 3000,
        '{"a":' * 3000,
        "a." * 3000 + "a",
        '"\\ud800"',
        "\ufeff",
        "2020-01-01",
        "0x10",
        "[[x]]",
    ),
)
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|-?\d[\w.+-]*|\btrue\b|\bfalse\b|\bnull\b|[\[\]{}=:,]|^\w+', re.MULTILINE)


def mutated(content: bytes, random: Random) -> bytes:
    """Bytes with one to sixteen changes."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        random.choice(CHANGES)(data, _place(data, random), random)
    return bytes(data)


def _place(data: bytearray, random: Random) -> int:
    length = max(1, len(data))
    near = random.randrange(min(ENDS, length))
    return random.choice((near, length - 1 - near, random.randrange(length), random.randrange(length)))


def _flip(data: bytearray, at: int, random: Random) -> None:
    if data:
        data[at] ^= 1 << random.randrange(8)


def _number(data: bytearray, at: int, random: Random) -> None:
    size = random.choice((1, 2, 4, 8))
    value = random.choice(NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, random.choice(("little", "big")))


def _cut(data: bytearray, at: int, random: Random) -> None:
    del data[at : at + random.choice((1, 2, 16, 256, len(data)))]


def _repeat(data: bytearray, at: int, random: Random) -> None:
    piece = data[at : at + random.choice((1, 4, 64, 1024))]
    data[at:at] = piece * random.choice((1, 2, 50))


def _insert(data: bytearray, at: int, random: Random) -> None:
    data[at:at] = random.randbytes(random.choice((1, 4, 64)))


def _blank(data: bytearray, at: int, random: Random) -> None:
    size = min(random.choice((1, 8, 512)), len(data) - at)
    data[at : at + size] = random.choice((b"\0", b"\xff")) * size


def _swap(data: bytearray, at: int, random: Random) -> None:
    other, size = _place(data, random), random.choice((1, 4, 32))
    data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]


CHANGES = (_flip, _flip, _number, _number, _cut, _repeat, _insert, _blank, _swap)


def mutated_text(content: bytes, random: Random) -> bytes:
    """JSON or TOML with another value, line or sign somewhere; now and then other bytes, which need not be UTF-8."""
    if random.random() < 0.2:
        return mutated(content, random)
    text = content.decode()
    for _ in range(random.choice((1, 1, 2, 5))):
        tokens = list(TOKEN.finditer(text))
        lines = text.split("\n")
        if not tokens or random.random() < 0.2:
            here, there = random.randrange(len(lines)), random.randrange(len(lines))
            lines.insert(here, lines[there]) if random.random() < 0.5 else lines.pop(there)
            text = "\n".join(lines)
            continue
        token = random.choice(tokens)
        new = random.choice((*VALUES, random.choice(tokens)[0]))
        text = text[: token.start()] + new + text[token.end() :]
    return text.encode("utf-8", "surrogatepass")


def mutated_tensors(content: bytes, random: Random) -> bytes:
    """A file of safetensors with a changed header, of the length that it says, or with other changes."""
    if random.random() < 0.3:
        return mutated(content, random)
    start = 8 + int.from_bytes(content[:8], "little")
    header = mutated_text(content[8:start], random)
    return len(header).to_bytes(8, "little") + header + content[start:]


def resealed(content: bytes, random: Random, change: Callable[[bytes, Random], bytes] = mutated) -> bytes:
    """A forged file: changed, and its checksum made right again where the place for it is still there."""
    at = content.index(MARK.encode())
    blank = content[:at] + BLANK.encode() + content[at + len(BLANK) :]
    for _ in range(20):
        with suppress(ValueError):
            return sealed(change(blank, random))
    return change(content, random)
