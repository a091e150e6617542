#!/usr/bin/env python3
"""Makes crates/formats/tests/fixtures/vocabularies from llama.cpp's vocabulary-only test files.

    pip install gguf
    python3 tools/vocabulary_goldens.py LLAMA_CPP_SOURCES/models LLAMA_TOKENIZE crates/formats/tests/fixtures/vocabularies

The files (`ggml-vocab-*.gguf`) and the texts beside them come with llama.cpp's sources, also with those that the Python package
llama-cpp-python is distributed with (vendor/llama.cpp/models). Expected ids are in `*.gguf.out`; for files without one they are
made with llama.cpp's program `llama-tokenize`.

For each file, NAME.gguf is its vocabulary with only the tokens that the texts reach and some more, and NAME.json has the texts, the
ids under the whole vocabulary and those under the trimmed one. The tests compare the latter; with WUSHI_VOCABULARIES set to the
folder of whole files, they compare the former too.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from gguf import GGUFReader, GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
KEY = "tokenizer.ggml."
SEPARATOR = "\n__ggml_vocab_test__\n"
# How much is kept that the texts do not reach.
FIRST_TOKENS, FIRST_MERGES, SPECIAL_TOKENS = 500, 500, 24


def read_texts(models, name):
    """The texts of a file, or those of another where it has none."""
    path = models / f"ggml-vocab-{name}.gguf.inp"
    if not path.exists():
        path = models / "ggml-vocab-llama-bpe.gguf.inp"
    return path.read_bytes().decode().split(SEPARATOR)


def read_ids(models, name, texts, tokenize):
    path = models / f"ggml-vocab-{name}.gguf.out"
    if path.exists():
        lines = path.read_text().split("\n")
        return [[int(id) for id in line.split()] for line in lines[: len(texts)]]
    ids = []
    for text in texts:
        with tempfile.NamedTemporaryFile() as file:
            file.write(text.encode())
            file.flush()
            command = [tokenize, "-m", models / f"ggml-vocab-{name}.gguf", "-f", file.name]
            command += ["--ids", "--no-bos", "--no-parse-special", "--log-disable"]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        ids.append(json.loads(run.stdout.strip() or "[]"))
    return ids


def substrings(text):
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            yield text[start:end]


def trim(field, reached):
    """Ids of the tokens to keep, ascending, and the merges."""
    tokens, types = field("tokens"), field("token_type") or [NORMAL] * len(field("tokens"))
    merges = field("merges") or []
    id_of = {token: id for id, token in enumerate(tokens)}
    keep = set(reached)
    # What a token may be made of on the way.
    for id in reached:
        if types[id] in (NORMAL, USER_DEFINED):
            keep.update(id_of[part] for part in substrings(tokens[id]) if part in id_of)
    kept_merges = []
    wanted = {tokens[id] for id in keep}
    for rank, merge in enumerate(merges):
        cut = merge.index(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if rank < FIRST_MERGES or (left in wanted and right in wanted and left + right in wanted):
            kept_merges.append(merge)
            keep.update(id_of[part] for part in (left, right, left + right))
    count = {}
    for id, (token, kind) in enumerate(zip(tokens, types)):
        if kind == BYTE or (kind == NORMAL and len(token) == 1 and merges and id < 1024):
            keep.add(id)
        elif kind == NORMAL and not merges or kind != NORMAL:
            count[kind] = count.get(kind, 0) + 1
            if count[kind] <= (FIRST_TOKENS if kind == NORMAL else SPECIAL_TOKENS):
                keep.add(id)
    keep.update(field(name) for name in NAMED if field(name) is not None)
    scores = field("scores")
    if scores:
        normal = [id for id in range(len(tokens)) if types[id] == NORMAL]
        keep.add(min(normal, key=lambda id: scores[id]))
    return sorted(keep), kept_merges


NAMED = [
    f"{name}_token_id"
    for name in ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask")
]


def write(path, reader, field, ids, merges):
    place = {id: at for at, id in enumerate(ids)}
    writer = GGUFWriter(path, "llama")
    if "general.name" in reader.fields:
        writer.add_name(reader.fields["general.name"].contents())
    model = field("model")
    writer.add_tokenizer_model(model)
    if field("pre"):
        writer.add_tokenizer_pre(field("pre"))
    tokens = field("tokens")
    writer.add_token_list([tokens[id] for id in ids])
    if field("token_type"):
        types = field("token_type")
        writer.add_token_types([types[id] for id in ids])
    # Of byte pairs, scores have no meaning.
    if field("scores") and model in ("llama", "t5"):
        scores = field("scores")
        writer.add_token_scores([scores[id] for id in ids])
    if merges:
        writer.add_token_merges(merges)
    if field("precompiled_charsmap"):
        writer.add_precompiled_charsmap(bytes(byte & 255 for byte in field("precompiled_charsmap")))
    for name in NAMED:
        if field(name) is not None:
            writer.add_uint32(KEY + name, place[field(name)])
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"):
        if field(name) is not None:
            writer.add_bool(KEY + name, field(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return place


def make(models, tokenize, out, name):
    reader = GGUFReader(models / f"ggml-vocab-{name}.gguf")
    cache = {}

    def field(key):
        if key not in cache:
            found = reader.fields.get(KEY + key)
            cache[key] = None if found is None else found.contents()
        return cache[key]

    texts = read_texts(models, name)
    whole = read_ids(models, name, texts, tokenize)
    ids, merges = trim(field, {id for line in whole for id in line})
    place = write(out / f"{name}.gguf", reader, field, ids, merges)
    cases = [
        {"text": text, "whole": line, "trimmed": [place[id] for id in line]} for text, line in zip(texts, whole)
    ]
    # One case a line: small, and still readable as a diff.
    lines = json.dumps(cases, separators=(",", ":")).replace('{"text"', '\n{"text"')
    (out / f"{name}.json").write_text(lines + "\n")
    size = (out / f"{name}.gguf").stat().st_size
    print(f"{name}: {len(cases)} texts, {len(ids)} tokens, {len(merges)} merges, {size} bytes")


def main():
    models, tokenize, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    only = sys.argv[4:]
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(models.glob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        if not only or name in only:
            make(models, tokenize, out, name)


if __name__ == "__main__":
    main()
