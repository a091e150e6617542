#!/usr/bin/env python3
"""Makes the tokenizer fixtures of crates/formats with Hugging Face's `tokenizers`.

    pip install tokenizers gguf
    python3 tools/tokenizer_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf crates/formats/tests/fixtures

Writes
  smollm2_tokens.json   ids of texts under the model's own vocabulary (to be run against the whole model file)
  trimmed.gguf          a vocabulary of some thousand of its tokens, without weights
  trimmed_tokens.json   ids of the same texts under that vocabulary, for several pre-tokenizers
"""

import json
import sys
from pathlib import Path

from gguf import GGUFReader, GGUFWriter
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

CONTROL = 3
RANKED_MERGES = 1200

TEXTS = [
    "",
    " ",
    "\n",
    "Hello, world!",
    "Why is the sky blue?",
    " leading and trailing  ",
    "a  b   c    d     e" + " " * 40 + "f" + " " * 7,
    "\n\n\n \t \r\n\t\tx\n \n  y",
    "I'll don't we've they're he'd it's I'M IT'S o'clock 'sup",
    "0 1 12 123 1234 12345 3.14159 1,000,000 0x7fff 2024-02-29 ٣٤٥ Ⅷ ½ ²",
    "The quick brown fox jumps over the lazy dog. " * 3,
    "def f(x: int) -> int:\n    return x * 2  # double\n\n\nfor i in range(10):\n\tprint(f(i), end='')\n",
    "fn main() { let v: Vec<u8> = vec![0; 16]; println!(\"{:?}\", &v[..4]); }",
    "<html><body class=\"a-b_c\">&amp;&lt;</body></html>",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\\n\"}}",
    "人工智能正在改变世界，我们需要可靠的基础设施。天空为什么是蓝色的？",
    "務實とは、理想よりも現実を重んじること。カタカナとひらがな。",
    "안녕하세요 세계! 하늘은 왜 파란가요?",
    "لماذا السماء زرقاء؟ الذكاء الاصطناعي يغيّر العالم.",
    "שלום עולם, למה השמיים כחולים?",
    "आसमान नीला क्यों है? কেন আকাশ নীল? ทำไมท้องฟ้าถึงเป็นสีฟ้า",
    "Почему небо голубое? Γιατί ο ουρανός είναι μπλε;",
    "naïve café résumé Ångström e\u0301 n\u0303 Zürich ÀÉÎÕÜ ß ſ",
    "😀😃🤖👩‍👩‍👧‍👦🏳️‍🌈🇩🇪🇫🇷👍🏽 a😀b",
    "mixed 中文 and English, العربية too 😀 — “quotes” … ‘x’ – –— •",
    "!!!???...;;;:::---___***///\\\\\\|||~~~```^^^$$$€€€£¥₹",
    "∑ᵢ xᵢ² ≤ ∫₀^∞ e^{-t} dt ≈ 1 ⇒ ∀ε>0 ∃δ",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\ufeffbom\u2028line",
    "\u0000\u0001\u0003\u0007\u001b[31mred\u001b[0m\u007f\u0085",
    "\ue000private\U000f0000\U0001fae8new\u0378unassigned",
    "CamelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case x1y2z3",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_start|> <|im_end|>x<|im_end|",
    "<|endoftext|><file_sep><|endoftext|>",
]

# Pre-tokenizers as the models' own tokenizer.json files have them.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def sequence(*steps):
    return pre_tokenizers.Sequence([*steps, byte_level()])


# Name in GGUF files: (pre-tokenizer, ignore_merges).
PRE = {
    "smollm": (sequence(pre_tokenizers.Digits(individual_digits=True), split(GPT2)), False),
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), False),
    "llama-bpe": (sequence(split(LLAMA3)), True),
    "qwen2": (sequence(split(LLAMA3.replace("{1,3}", ""))), False),
    "tekken": (sequence(split(CASED % ("", "", r"\p{N}"))), True),
    "gpt-4o": (sequence(split(CASED % (SUFFIX, SUFFIX, r"\p{N}{1,3}"))), False),
}


def build(tokens, types, merges, pre, ignore_merges):
    model = models.BPE(
        vocab={token: id for id, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in merges],
        ignore_merges=ignore_merges,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    control = [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer


def goldens(tokenizer):
    cases = []
    for text in TEXTS:
        tokenizer.encode_special_tokens = False
        special = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text).ids
        cases.append({"text": text, "special": special, "plain": plain})
    return cases


def write_json(path, value):
    # One case a line: small, and still readable as a diff.
    lines = json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace('{"text"', '\n{"text"')
    path.write_text(lines + "\n")


def trim(tokens, types, merges, tokenizer):
    """The first merges, and all that lead to a token of the texts; ids are counted anew."""
    made_by = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ")
        made_by.setdefault(left + right, (rank, left, right))
    ranks = set(range(RANKED_MERGES))

    def need(token):
        if token in made_by and made_by[token][0] not in ranks:
            rank, left, right = made_by[token]
            ranks.add(rank)
            need(left)
            need(right)

    tokenizer.encode_special_tokens = True
    for text in TEXTS:
        for token in tokenizer.encode(text).tokens:
            need(token)
    kept_merges = [merges[rank] for rank in sorted(ranks)]
    kept = {part for merge in kept_merges for part in (*merge.split(" "), merge.replace(" ", ""))}
    ids = [id for id, token in enumerate(tokens) if types[id] == CONTROL or len(token) == 1 or token in kept]
    return [tokens[id] for id in ids], [types[id] for id in ids], kept_merges


def main():
    model, out = Path(sys.argv[1]), Path(sys.argv[2])
    fields = GGUFReader(model).fields
    key = "tokenizer.ggml."
    tokens, types, merges = (fields[key + name].contents() for name in ("tokens", "token_type", "merges"))
    whole = build(tokens, types, merges, *PRE["smollm"])
    write_json(out / "smollm2_tokens.json", goldens(whole))

    tokens, types, merges = trim(tokens, types, merges, whole)
    trimmed = {pre: goldens(build(tokens, types, merges, *how)) for pre, how in PRE.items()}
    write_json(out / "trimmed_tokens.json", trimmed)
    writer = GGUFWriter(out / "trimmed.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(fields["tokenizer.chat_template"].contents())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    print(f"{len(tokens)} tokens and {len(merges)} merges in trimmed.gguf")


if __name__ == "__main__":
    main()
