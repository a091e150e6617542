#!/usr/bin/env python3
"""Makes huggingface_tokenizers.json: small tokenizers of each kind in Hugging Face's files, with the ids they give; and
unigram.model and unigram.json, the same for a file of SentencePiece's.

    pip install tokenizers transformers sentencepiece protobuf
    python3 tools/huggingface_goldens.py crates/formats/tests/fixtures

The tokenizers are trained here, on the texts of tokenizer_goldens.py and some sentences, with the structure that those of
well-known families have; those of SentencePiece go through the converters of `transformers`. Ids are those of `tokenizers`.
"""

import json
import sys
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GemmaTokenizer, LlamaTokenizer, T5Tokenizer
from transformers.convert_slow_tokenizer import GemmaConverter, LlamaConverter, T5Converter

from tokenizer_goldens import GPT2, LLAMA3, TEXTS

SENTENCES = [
    "The sky is blue because air scatters short waves more than long ones.",
    "A tokenizer cuts text into pieces, and the pieces become numbers that a model can read.",
    "Whoever writes numbers such as 2024 or 3.14159 wants them back as they were.",
    "In the beginning was the word, and the words were many; there were spaces   between them.",
    "Das Wetter ist schön, größer als gestern. L'été à la plage. El niño mañana.",
    "def main():\n    for number in range(10):\n        print(number)\n",
]
# The control characters and the longest runs tell nothing about these kinds, and SentencePiece's trainer refuses zeros.
TRAIN = SENTENCES * 4 + [text for text in TEXTS if "\0" not in text and "<|" not in text]
CASES = TEXTS + ["<s>Hello</s> there", "Hi<|sep|>  you", " <|sep|>x", "▁marked▁ text", "a<mask>b <mask> c", "x" * 120]
SIZE = 420


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(pre, specials, ignore_merges=False, normalizer=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TRAIN, trainer)
    return tokenizer


def unsplit_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def gpt2_like():
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}


def qwen_like():
    pre = pre_tokenizers.Sequence([split(LLAMA3.replace("{1,3}", "")), unsplit_level()])
    tokenizer = byte_level(pre, [], normalizer=normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}


def llama3_like():
    pre = pre_tokenizers.Sequence([split(LLAMA3), unsplit_level()])
    tokenizer = byte_level(pre, [], ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    first = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(single=f"{first[0]} $A", pair=None, special_tokens=[first])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer, {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>"}}


def smollm_like():
    pre = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return byte_level(pre, ["<|endoftext|>", "<|im_start|>"]), {"eos_token": "<|endoftext|>"}


def sentencepiece_model(folder, kind, **options):
    path = Path(folder) / "model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text for text in TRAIN if text.strip()),
        model_prefix=str(path),
        model_type=kind,
        minloglevel=2,
        **options,
    )
    return str(path) + ".model"


BPE = dict(
    vocab_size=SIZE + 256,
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    split_digits=True,
    character_coverage=0.98,
)


def enclose(tokenizer, first, last=None):
    """As the fast tokenizers of `transformers` do it once they know whether to."""
    tokens = [token for token in (first, last) if token]
    single = f"{first} $A" + (f" {last}" if last else "")
    pairs = [(token, tokenizer.token_to_id(token)) for token in tokens]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)


def llama2_like(folder):
    slow = LlamaTokenizer(sentencepiece_model(folder, "bpe", **BPE), legacy=True)
    tokenizer = LlamaConverter(slow).converted()
    tokenizer.add_tokens([AddedToken("<|sep|>", special=True, normalized=False)])
    enclose(tokenizer, "<s>")
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": False}


def mistral_like(folder):
    slow = LlamaTokenizer(sentencepiece_model(folder, "bpe", **BPE), legacy=False)
    tokenizer = LlamaConverter(slow).converted()
    tokenizer.add_tokens([AddedToken("<|sep|>", special=True, normalized=False, rstrip=True)])
    enclose(tokenizer, "<s>", "</s>")
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True}


def gemma_like(folder):
    options = dict(BPE, pad_id=0, eos_id=1, bos_id=2, unk_id=3, add_dummy_prefix=False)
    slow = GemmaTokenizer(sentencepiece_model(folder, "bpe", **options))
    tokenizer = GemmaConverter(slow).converted()
    tokenizer.add_tokens([AddedToken("<mask>", special=False, normalized=False)])
    enclose(tokenizer, "<bos>")
    return tokenizer, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}


def gemma4_like():
    """Merges that no scores say: those of the trainer here, which has one pair for each token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE + 256, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"] + byte_tokens, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    parsed = json.loads(tokenizer.to_str())
    parsed["added_tokens"] = parsed["added_tokens"][:4]
    parsed["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False
    }
    tokenizer = Tokenizer.from_str(json.dumps(parsed))
    enclose(tokenizer, "<bos>")
    return tokenizer, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}


def bert_like(cased):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased, strip_accents=None)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return tokenizer, dict(zip(names, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")))


def small_rules(folder):
    """A file of rules for `normalization_rule_tsv`."""
    # A small table in place of NFKC's, which takes a quarter of a megabyte.
    rules = Path(folder) / "rules.tsv"
    pairs = [("\n", " "), ("\t", " "), ("\r", " "), ("\u00a0", " "), ("\u3000", " "), ("²", "2"), ("Ⅷ", "VIII")]
    pairs += [("ﬀ", "ff"), ("e\u0301", "é"), ("，", ","), ("½", "1/2"), ("\u200b", "")]
    lines = ["\t".join(" ".join(f"{ord(c):X}" for c in side) for side in pair) for pair in pairs]
    rules.write_text("\n".join(lines) + "\n")
    return str(rules)


def t5_like(folder):
    path = sentencepiece_model(
        folder, "unigram", vocab_size=300, normalization_rule_tsv=small_rules(folder), character_coverage=0.98, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1,
    )
    slow = T5Tokenizer(path, extra_ids=4, legacy=False)
    return T5Converter(slow).converted(), {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def umt5_like(folder):
    """As converters of an earlier `transformers` wrote such files: spaces joined but not stripped, marked without cutting first."""
    path = sentencepiece_model(
        folder, "unigram", vocab_size=300, normalization_rule_name="identity", character_coverage=0.98, pad_id=0,
        eos_id=1, bos_id=2, unk_id=3,
    )
    tokenizer = T5Converter(T5Tokenizer(path, extra_ids=4, legacy=False)).converted()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return tokenizer, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def split_unigram():
    """The same without a table, cut at white space first."""
    tokenizer, config = trained_unigram()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return tokenizer, config


def trained_unigram():
    """Trained by `tokenizers` itself: NFKC, one text in place of another, every space marked."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("||", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    specials = ["<pad>", "</s>", "<s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def write_sentencepiece(folder):
    """`unigram.model`, a file of SentencePiece's, and `unigram.json`, the ids that its own library gives."""
    with tempfile.TemporaryDirectory() as temporary:
        path = sentencepiece_model(
            temporary, "unigram", vocab_size=300, normalization_rule_tsv=small_rules(temporary), character_coverage=0.98,
            pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        )
        (folder / "unigram.model").write_bytes(Path(path).read_bytes())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "unigram.model"))
    texts = [text for text in CASES if "\0" not in text and not any(name in text for name in ("<s>", "</s>", "<unk>"))]
    lines = [json.dumps({"text": text, "ids": processor.encode(text)}) for text in texts]
    (folder / "unigram.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


def cases(tokenizer):
    """Texts with their ids, and what encloses them."""
    enclosed = tokenizer.encode("a").ids
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    at = next(at for at in range(len(enclosed)) if enclosed[at : at + len(bare)] == bare)
    first, last = enclosed[:at], enclosed[at + len(bare) :]
    cases = []
    for text in CASES:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text).ids == first + ids + last
        cases.append({"text": text, "ids": ids})
    return first, last, cases


def main():
    makers = {
        "like GPT-2": gpt2_like,
        "like Qwen": qwen_like,
        "like Llama 3": llama3_like,
        "like SmolLM": smollm_like,
        "like Llama 2": llama2_like,
        "like Mistral": mistral_like,
        "like Gemma": gemma_like,
        "like Gemma 4": gemma4_like,
        "like BERT": lambda: bert_like(False),
        "like BERT, cased": lambda: bert_like(True),
        "like T5": t5_like,
        "like umT5": umt5_like,
        "Unigram of the library": trained_unigram,
        "Unigram cut at white space": split_unigram,
    }
    entries = []
    for name, make in makers.items():
        with tempfile.TemporaryDirectory() as folder:
            arguments = (folder,) if make.__code__.co_argcount else ()
            tokenizer, config = make(*arguments)
        parsed = json.loads(tokenizer.to_str())
        if name == "like GPT-2":
            # As files were written before parts of merges could have spaces.
            parsed["model"]["merges"] = [" ".join(pair) for pair in parsed["model"]["merges"]]
        text = json.dumps(parsed, ensure_ascii=False, separators=(",", ":"))
        tokenizer = Tokenizer.from_str(text)
        first, last, texts = cases(tokenizer)
        entry = {"name": name, "tokenizer_json": text, "tokenizer_config": config}
        entry.update(first=first, last=last, cases=texts)
        # Models' embeddings are often longer than their vocabulary.
        entry["vocab_size"] = tokenizer.get_vocab_size() + 5
        entries.append(entry)
        print(f"{name}: {tokenizer.get_vocab_size()} tokens, {len(text)} bytes")
    lines = json.dumps(entries, separators=(",", ":")).replace('{"text"', '\n{"text"')
    (Path(sys.argv[1]) / "huggingface_tokenizers.json").write_text(lines + "\n")
    write_sentencepiece(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
