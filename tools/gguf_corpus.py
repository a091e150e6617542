#!/usr/bin/env python3
"""Makes the seeds of the GGUF fuzz corpus: small sound files, and files with one thing wrong each.

    python3 tools/gguf_corpus.py fuzz/corpus/gguf

Names say what a reader must do: `valid-` is read, `bad-` is refused. What a fuzzer finds goes beside them.
"""

import struct
import sys
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", U64: "<Q", I64: "<q", F64: "<d"}
DTYPE_F32, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q8_0 = 0, 2, 12, 8


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return u64(len(data)) + data


def payload(kind, value):
    if kind == STRING:
        return string(value)
    if kind == BOOL:
        return bytes([value])
    if kind == ARRAY:
        element, values = value
        return u32(element) + u64(len(values)) + b"".join(payload(element, v) for v in values)
    return struct.pack(PACK[kind], value)


def entry(key, kind, value):
    return string(key) + u32(kind) + payload(kind, value)


def tensor(name, ne, kind, offset):
    return string(name) + u32(len(ne)) + b"".join(u64(n) for n in ne) + u32(kind) + u64(offset)


def header(tensors, entries, version=3, magic=b"GGUF"):
    return magic + u32(version) + u64(tensors) + u64(entries)


def file(entries, tensors=(), data=b"", version=3, alignment=32):
    head = header(len(tensors), len(entries), version) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def alphabet():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    chars = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [chars[byte] for byte in range(256)]


TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tokenizer(merges=("t h", "th e", "Ġ the"), extra=("th", "the", "Ġthe"), **changes):
    tokens = ["<|im_start|>", "<|im_end|>", *alphabet(), *extra]
    entries = {
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "smollm"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [3, 3] + [1] * (len(tokens) - 2))),
        "tokenizer.ggml.merges": (ARRAY, (STRING, list(merges))),
        "tokenizer.ggml.bos_token_id": (U32, 0),
        "tokenizer.ggml.eos_token_id": (U32, 1),
        "tokenizer.ggml.add_bos_token": (BOOL, 1),
        "tokenizer.chat_template": (STRING, TEMPLATE),
    }
    entries |= changes
    return [entry(key, *value) for key, value in entries.items()]


ARCHITECTURE = entry("general.architecture", STRING, "llama")
SCALARS = [entry(f"scalar.{kind}", kind, 1) for kind in PACK]
F32_DATA = struct.pack("<8f", *range(8))
Q8_DATA = bytes(34) * 2
TENSORS = [tensor("norm.weight", [8], DTYPE_F32, 0), tensor("matrix.weight", [32, 2], DTYPE_Q8_0, 32)]
DATA = F32_DATA + Q8_DATA + bytes(-len(Q8_DATA) % 32)


def model(**changes):
    return file([ARCHITECTURE, *SCALARS, *tokenizer(**changes)], TENSORS, DATA)


def nested(depth):
    value = (U8, [1])
    for _ in range(depth):
        value = (ARRAY, [value])
    return value


def seeds():
    huge = 2**64 - 1
    one = [tensor("t", [8], DTYPE_F32, 0)]
    yield "valid-empty", file([])
    yield "valid-version-2", file([ARCHITECTURE], one, F32_DATA, version=2)
    yield "valid-model", model()
    yield "valid-llama-bpe", model(**{"tokenizer.ggml.pre": (STRING, "llama-bpe")})
    yield "valid-alignment-64", file([entry("general.alignment", U32, 64)], one, F32_DATA, alignment=64)
    yield "valid-unsupported-type", file([], [tensor("t", [256], DTYPE_Q4_K, 0)], bytes(144))
    yield "valid-unknown-type", file([], [tensor("t", [256], 777, 0), *one[1:]], bytes(32))
    yield "valid-nested-arrays", file([entry("a", ARRAY, nested(3))])
    yield "valid-bad-merge", model(merges=("t h", "x nowhere"))
    yield "valid-merge-too-long", model(merges=("t h" * 20,))
    yield "valid-duplicate-token", model(extra=("th", "the", "Ġthe", "the"))
    yield "valid-token-id-out-of-range", model(**{"tokenizer.ggml.eos_token_id": (U32, 10**9)})
    yield "valid-short-token-types", model(**{"tokenizer.ggml.token_type": (ARRAY, (I32, [3]))})
    yield "valid-wrong-kinds", model(**{"tokenizer.ggml.tokens": (U32, 1), "tokenizer.chat_template": (U8, 1)})
    loops = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"
    yield "valid-endless-template", file([entry("tokenizer.chat_template", STRING, loops)])

    yield "bad-nothing", b""
    yield "bad-magic", b"GGML" + model()[4:]
    yield "bad-big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    yield "bad-version-1", file([], version=1)
    yield "bad-version-4", file([], version=4)
    yield "bad-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    yield "bad-tensor-count", header(huge, 0)
    yield "bad-entry-count", header(0, huge)
    yield "bad-counts-that-overflow", header(2**60, 2**60) + bytes(64)
    yield "bad-key-length", header(0, 1) + u64(huge) + b"key"
    yield "bad-string-length", header(0, 1) + string("k") + u32(STRING) + u64(2**63) + b"x"
    yield "bad-array-length", header(0, 1) + string("k") + u32(ARRAY) + u32(F64) + u64(2**61) + bytes(64)
    yield "bad-string-array-length", header(0, 1) + string("k") + u32(ARRAY) + u32(STRING) + u64(2**61) + bytes(64)
    yield "bad-nested-arrays", file([entry("a", ARRAY, nested(200))])
    yield "bad-value-type", header(0, 1) + string("k") + u32(13) + bytes(64)
    yield "bad-element-type", header(0, 1) + string("k") + u32(ARRAY) + u32(99) + bytes(64)
    yield "bad-truth", file([entry("k", BOOL, 2)])
    yield "bad-key-text", file([entry(b"\xff\xfe", U8, 0)])
    yield "bad-key-control", file([entry("a\x1b[2Jb", U8, 0)])
    yield "bad-value-text", file([entry("k", STRING, b"\xc3")])
    yield "bad-array-text", file([entry("k", ARRAY, (STRING, [b"a\xc3", b"\xa9b"]))])
    yield "bad-duplicate-key", file([ARCHITECTURE, ARCHITECTURE])
    yield "bad-duplicate-tensor", file([], [one[0], tensor("t", [8], DTYPE_F32, 32)], F32_DATA * 2)
    yield "bad-alignment-zero", file([entry("general.alignment", U32, 0)], one, F32_DATA)
    yield "bad-alignment-odd", file([entry("general.alignment", U32, 33)], one, F32_DATA)
    yield "bad-alignment-huge", file([entry("general.alignment", U32, 2**31)], one, F32_DATA)
    yield "bad-dimensions", file([], [tensor("t", [1] * 9, DTYPE_F32, 0)], F32_DATA)
    yield "valid-five-dimensions", file([], [tensor("t", [2, 2, 2, 1, 1], DTYPE_F32, 0)], F32_DATA)
    yield "bad-dimension-count", header(1, 0) + string("t") + u32(2**32 - 1) + bytes(64)
    yield "bad-shape-overflow", file([], [tensor("t", [2**40, 2**40], DTYPE_F32, 0)], F32_DATA)
    yield "bad-shape-zero", file([], [tensor("t", [8, 0], DTYPE_F32, 0)], F32_DATA)
    yield "bad-rows", file([], [tensor("t", [31], DTYPE_Q8_0, 0)], bytes(64))
    yield "bad-offset-huge", file([], [tensor("t", [8], DTYPE_F32, huge - 31)], F32_DATA)
    yield "bad-offset-unaligned", file([], [tensor("t", [8], DTYPE_F32, 4)], F32_DATA * 2)
    yield "bad-offset-overlap", file([], [*one, tensor("u", [8], DTYPE_F32, 0)], F32_DATA * 2)
    yield "bad-offset-gap", file([], [*one, tensor("u", [8], DTYPE_F32, 64)], F32_DATA * 3)
    yield "bad-tensor-beyond-end", file([], [tensor("t", [9], DTYPE_F32, 0)], F32_DATA)
    yield "bad-truncated-entries", model()[:1000]
    yield "bad-truncated-table", file([], one, b"")[:40]
    yield "bad-truncated-data", model()[:-40]
    flipped = bytearray(model())
    flipped[30] ^= 0x80
    yield "bad-flipped-key-length", bytes(flipped)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        (folder / f"{name}.gguf").write_bytes(data)


if __name__ == "__main__":
    main()
