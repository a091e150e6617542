#!/usr/bin/env python3
"""Makes the seeds of the fuzz corpora for tokenizers and chat templates: small sound ones, and ones with one thing wrong.

    python3 tools/tokenizer_corpus.py fuzz/corpus

Names say what a reader must do: `valid-` is read, `bad-` is refused. A file and the text for it are parted by a byte 0xff, as are
a template and its messages. What a fuzzer finds goes beside them.
"""

import base64
import json
import struct
import sys
from pathlib import Path

from gguf_corpus import ARRAY, BOOL, F32, I32, STRING, U8, U32, alphabet, entry, file

KEY = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
WORDS = ["▁", "s", "k", "y", "b", "l", "u", "e", "▁s", "▁b", "lu", "ue", "▁sk", "▁sky", "▁blue", "blue", "  ", "W", "h"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def gguf(model, tokens, types, text=b"The sky </s> is  blue", **more):
    entries = [entry(KEY + "model", STRING, model), entry(KEY + "tokens", ARRAY, (STRING, tokens))]
    entries.append(entry(KEY + "token_type", ARRAY, (I32, types)))
    for name, (kind, value) in more.items():
        entries.append(entry(name.replace("__", ".") if "__" in name else KEY + name, kind, value))
    return file(entries) + b"\xff" + text


def sentencepiece(scores=None, **more):
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *WORDS]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(WORDS)
    scores = scores or [-float(at) for at in range(len(tokens))]
    return gguf("llama", tokens, types, scores=(ARRAY, (F32, scores)), **more)


def wordpiece(**more):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁sky", "▁blue", "▁the", "s", "▁is", "▁."]
    ids = dict(unknown_token_id=(U32, 1), cls_token_id=(U32, 2), seperator_token_id=(U32, 3))
    return gguf("bert", tokens, [CONTROL] * 4 + [NORMAL] * 6, b"The SKYs \xc3\xa9 are blue. [MASK]", **{**ids, **more})


def charsmap(units, replacements):
    trie = b"".join(struct.pack("<I", unit) for unit in units)
    return struct.pack("<I", len(trie)) + trie + replacements


def one_rule():
    """`A` becomes `a`: the root's offset is 1, so that the child is at 1 ^ 0x41, and its leaf at its own offset."""
    units = [0] * 256
    units[0] = 1 << 10
    child = 1 ^ 0x41
    units[child] = (2 << 10) | 1 << 8 | 0x41
    units[child ^ 2] = 1 << 31 | 0
    return charsmap(units, b"a\0")


def unigram(table=None, **more):
    tokens = ["<pad>", "</s>", "<unk>", *WORDS]
    types = [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * len(WORDS)
    scores = [-float(at) for at in range(len(tokens))]
    table = one_rule() if table is None else table
    more = {"scores": (ARRAY, (F32, scores)), "precompiled_charsmap": (ARRAY, (U8, list(table))), **more}
    return gguf("t5", tokens, types, b" sky  AbA blue\xe3\x80\x80", **more)


def gemma4():
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *BYTES, "▁", "s", "k", "y", "sk", "sky", "▁sky", "\n", "\n\n"]
    types = [CONTROL] * 3 + [UNKNOWN] + [BYTE] * 256 + [NORMAL] * 9
    merges = ["s k", "sk y", "▁ sky", "\n \n"]
    return gguf("gemma4", tokens, types, b"a sky\n\n\nsky", merges=(ARRAY, (STRING, merges)), bos_token_id=(U32, 2))


def byte_level(pre="qwen2", **more):
    tokens = [*alphabet(), "sk", "sky", "<|im_end|>"]
    types = [NORMAL] * (len(tokens) - 1) + [CONTROL]
    merges = (ARRAY, (STRING, ["s k", "sk y"]))
    return gguf("gpt2", tokens, types, b"a sky<|im_end|>\n", pre=(STRING, pre), merges=merges, **more)


def tokenizers():
    yield "valid-llama", sentencepiece()
    yield "valid-llama-no-prefix", sentencepiece(add_space_prefix=(BOOL, 0))
    start = (STRING, "start-unless-space")
    yield "valid-llama-prefix-at-start", sentencepiece(tokenizer__wushi__space_prefix=start)
    yield "valid-llama-strip", sentencepiece(tokenizer__wushi__strip_left=(ARRAY, (U32, [2, 7000])))
    yield "bad-llama-nan-score", sentencepiece([float("nan")] * 278)
    yield "bad-llama-few-scores", sentencepiece([1.0])
    yield "bad-llama-prefix", sentencepiece(tokenizer__wushi__space_prefix=(STRING, "sometimes"))
    yield "bad-normalizer", sentencepiece(tokenizer__wushi__normalizer=(STRING, "rot13"))
    yield "valid-bert", wordpiece()
    yield "valid-bert-cased", wordpiece(tokenizer__ggml__normalizer__lowercase=(BOOL, 0))
    yield "bad-bert-unknown-out-of-range", wordpiece(unknown_token_id=(U32, 99))
    yield "valid-t5", unigram()
    yield "valid-t5-no-table", unigram(b"")
    yield "valid-t5-table-points-outside", unigram(charsmap([0xFFFFFFFF] * 8, b"a\0"))
    yield "valid-t5-table-without-end", unigram(charsmap([1 << 10, *[3 << 8 | 0x41] * 255], b"a"))
    yield "bad-t5-table-length", unigram(struct.pack("<I", 4000) + b"abcd")
    yield "bad-t5-table-short", unigram(b"abc")
    yield "bad-t5-table-long-replacement", unigram(charsmap([0] * 4, b"a" * 1000 + b"\0"))
    yield "bad-t5-unknown", unigram(unknown_token_id=(U32, 4000))
    yield "valid-gemma4", gemma4()
    yield "valid-gpt2", byte_level()
    yield "valid-gpt2-nfc", byte_level(tokenizer__wushi__normalizer=(STRING, "nfc"))
    yield "bad-gpt2-pre", byte_level("klingon")
    yield "bad-model", gguf("rwkv", ["a"], [1])
    yield from json_tokenizers()


def tokenizer_json(model, **more):
    whole = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None}
    return json.dumps({**whole, **more, "model": model}, ensure_ascii=False).encode() + b"\xffThe sky </s> is blue"


def added(id, content, special=True, **more):
    return {"id": id, "content": content, "special": special, "normalized": False, **more}


def json_tokenizers():
    vocab = {token: id for id, token in enumerate([*alphabet(), "sk", "sky"])}
    bpe = {"type": "BPE", "vocab": vocab, "merges": [["s", "k"], "sk y"]}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    yield "valid-json-gpt2", tokenizer_json(bpe, pre_tokenizer=level, added_tokens=[added(258, "</s>", rstrip=True)])
    nested = level
    for _ in range(40):
        nested = {"type": "Sequence", "pretokenizers": [nested]}
    yield "valid-json-nested", tokenizer_json(bpe, pre_tokenizer=nested)
    yield "bad-json-pre", tokenizer_json(bpe, pre_tokenizer={"type": "Whitespace"})
    yield "bad-json-merge", tokenizer_json({**bpe, "merges": [["s", "q" * 9]]}, pre_tokenizer=level)
    yield "bad-json-three-parts", tokenizer_json({**bpe, "merges": [["s", "k", "y"]]}, pre_tokenizer=level)
    yield "bad-json-two-ids", tokenizer_json(bpe, pre_tokenizer=level, added_tokens=[added(300, "sky")])
    yield "bad-json-one-id", tokenizer_json(bpe, pre_tokenizer=level, added_tokens=[added(257, "</s>")])
    yield "valid-json-added-beyond", tokenizer_json(bpe, pre_tokenizer=level, added_tokens=[added(4294967295, "</s>")])
    yield "bad-json-far-id", tokenizer_json({**bpe, "vocab": {**bpe["vocab"], "far": 4294967295}}, pre_tokenizer=level)
    yield "bad-json-single-word", tokenizer_json(
        bpe, pre_tokenizer=level, added_tokens=[added(258, "x", single_word=True)]
    )
    spm = {token: id for id, token in enumerate(["<unk>", "<s>", "</s>", *BYTES, "▁", "s", "k", "sk", "▁sk"])}
    pairs = [["s", "k"], ["▁", "sk"]]
    spm = {"type": "BPE", "vocab": spm, "merges": pairs, "byte_fallback": True, "unk_token": "<unk>"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    tokens = [added(1, "<s>"), added(2, "</s>")]
    yield "valid-json-llama", tokenizer_json(spm, normalizer=replace, added_tokens=tokens)
    yield "valid-json-gemma4", tokenizer_json({**spm, "merges": pairs[::-1] + pairs}, normalizer=replace)
    first = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    yield "valid-json-mistral", tokenizer_json(spm, pre_tokenizer=first, added_tokens=tokens)
    yield "bad-json-mistral-merges", tokenizer_json({**spm, "merges": pairs[:1] * 2 + pairs[1:] + pairs}, pre_tokenizer=first)
    table = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(one_rule()).decode()}
    spaces = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁"}]}
    scores = [["<unk>", 0.0], ["</s>", 0.0], *([word, -float(at + 1)] for at, word in enumerate(WORDS))]
    words = {"type": "Unigram", "vocab": scores, "unk_id": 0}
    yield "valid-json-t5", tokenizer_json(words, normalizer=table, pre_tokenizer=spaces)
    broken = {**table, "precompiled_charsmap": "!!!!"}
    yield "bad-json-t5-table", tokenizer_json(words, normalizer=broken, pre_tokenizer=spaces)
    yield "bad-json-t5-unknown", tokenizer_json({**words, "unk_id": 99}, normalizer=table, pre_tokenizer=spaces)
    pieces = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "sky": 3, "##s": 4}
    pieces = {"type": "WordPiece", "vocab": pieces, "unk_token": "[UNK]", "max_input_chars_per_word": 100}
    bert = dict(normalizer={"type": "BertNormalizer"}, pre_tokenizer={"type": "BertPreTokenizer"})
    enclose = {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}
    yield "valid-json-bert", tokenizer_json(pieces, post_processor=enclose, **bert)
    yield "bad-json-bert-open", tokenizer_json(pieces, **bert)
    yield "bad-json-model", tokenizer_json({"type": "WordLevel", "vocab": {}})
    yield "bad-json-nothing", b""
    yield "bad-json-list", b"[]"


MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "image"}]},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1e300}}}]},
    {"role": "tool"},
]


def templates():
    loop = "{% for m in messages %}<|{{ m.role }}|>{{ m.content if m.content is string else m|tojson }}{% endfor %}"
    yield "valid-loop", loop.encode()
    yield "valid-loop-parts", loop.encode() + b"\xff" + json.dumps(MESSAGES).encode()
    yield "valid-tools", b"{% for t in tools %}{{ t|tojson(indent=2) }}{{ t }}{% endfor %}{{ strftime_now('%Y') }}"
    yield "valid-refusal", b"{{ raise_exception('no') }}"
    yield "valid-macro", b"{% macro f(x) -%}{{ x|trim }}{%- endmacro %}{{ f(messages[0].content) }}{{ messages[::-1][0].role }}"
    yield "valid-namespace", b"{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    yield "valid-split", b"{{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}{{ 'x'|indent(4, true) }}{{ 1e20|string }}"
    yield "valid-endless", b"{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"
    yield "valid-bomb", b"{% set ns = namespace(x=[1.5]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"
    yield "valid-nested", b"{% set ns = namespace(x=1) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}"
    yield "valid-nothing", b""
    yield "bad-open", b"{% for m in messages %}"
    yield "bad-brackets", b"{{ " + b"[" * 2000
    yield "bad-tag", b"{% frobnicate %}"


def main():
    corpus = Path(sys.argv[1])
    for name, seeds in (("tokenizer", tokenizers()), ("template", templates())):
        folder = corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        for stem, data in seeds:
            (folder / stem).write_bytes(data)


if __name__ == "__main__":
    main()
