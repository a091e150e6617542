#!/usr/bin/env python3
"""Makes the tiny models and number vectors under tests/fixtures/ that the tests compare Wushi with.

    python3 -m venv target/fixtures-venv
    target/fixtures-venv/bin/pip install -r tools/requirements.txt
    target/fixtures-venv/bin/python tools/make_fixtures.py

What it writes (tests/fixtures/README.md describes the formats):

  models/NAME.gguf    a LlamaForCausalLM with random weights, converted as llama.cpp's convert_hf_to_gguf does
  models/NAME.json    its sizes, token ids, and where the expected logits of each case lie in NAME.f32
  models/NAME.f32     logits by `transformers` in F32 with eager attention, raw little-endian
  dequant/TYPE.bin    blocks of a storage type, extreme ones among them
  dequant/TYPE.f32    their values by the `gguf` package, raw little-endian F32

Everything is drawn from fixed seeds. Weights, blocks and token ids come out the same on every machine; logits may
differ in their last bits with the version of torch, which is why the results are committed and the tests never run
this. The weights a case was computed with are the *stored* ones (quantised, then dequantised again), so that a test
sees the engine's own error alone: F32 rounding, and for quantised matrices the rounding of activations.
"""

import argparse
import hashlib
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from tokenizers import Regex, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"

# ---------------------------------------------------------------------------------------------------------------
# The tokenizer: a byte-level BPE with 3 special tokens, the 256 bytes and 32 merges; 291 tokens, so that the rows
# of the output matrix fill no whole number of SIMD registers.

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = (
    "Ġ t|h e|i n|Ġ a|r e|o n|Ġt he|Ġ s|e r|n d|Ġ w|a t|Ġ c|e n|i s|o r|Ġ o|i t|Ġa nd|in g|e s|o u|Ġo f|Ġt o|Ġ Ġ|"
    "ĠĠ ĠĠ|ä ½|å ¥|ä½ ł|å¥ ½|ð Ł|ðŁ Ļ"
).split("|")

# The shape of SmolLM2's template (ChatML), with words of our own.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a tiny test model.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Llama 3's splitting pattern, as its tokenizer.json has it.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEXTS = [
    "",
    "the end",
    "The rain in Spain, on and on: it is there.",
    "numbers 1234567 and 3.14",
    "    four spaces\n\n\ttab  \n",
    "你好，世界",
    "مرحبا",
    "smile 🙂 and family 👨‍👩‍👧",
    "it's I'LL we'Re",
    "<|im_start|>user\nhi<|im_end|>\n",
]


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins of the 256 bytes, in the order GPT-2 gives them ids."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def vocabulary() -> list[str]:
    """All token strings by id."""
    tokens = SPECIAL + byte_alphabet()
    for merge in MERGES:
        left, right = merge.split(" ")
        assert left in tokens and right in tokens, f"merge {merge!r} has a part that no token spells"
        tokens.append(left + right)
    assert len(set(tokens)) == len(tokens) == 291
    return tokens


def reference_tokenizer(pre: str) -> tokenizers.Tokenizer:
    """The same tokenizer for the `tokenizers` library, split as `tokenizer.ggml.pre` = `pre` says."""
    tokens = vocabulary()
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=[tuple(m.split(" ")) for m in MERGES],
            ignore_merges=pre == "llama-bpe",
        )
    )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre != "llama-bpe")
    first = {
        "smollm": pre_tokenizers.Digits(individual_digits=True),
        "llama-bpe": pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
    }[pre]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


# ---------------------------------------------------------------------------------------------------------------
# Checkpoints: random weights whose every tensor shows in the logits.


@dataclass
class Checkpoint:
    """One set of random weights, before storage."""

    config: LlamaConfig
    seed: int
    pre: str
    """`tokenizer.ggml.pre`."""
    bos: int
    eos: int
    add_bos: bool

    def state(self) -> dict[str, np.ndarray]:
        """F32 weights by their name in `transformers`. Scales keep the logits' deviation at 1 to 3, attention
        uneven, and no norm or bias near its neutral value, so that leaving any tensor out changes the result."""
        rng = np.random.default_rng(self.seed)
        state = {}
        shapes = {n: tuple(p.shape) for n, p in LlamaForCausalLM(self.config).named_parameters()}
        for name, shape in sorted(shapes.items()):
            if name.endswith("norm.weight"):
                value = rng.uniform(0.5, 1.5, shape)
            elif name.endswith(".bias"):
                value = rng.normal(0.0, 0.3, shape)
            elif name.endswith("embed_tokens.weight"):
                value = rng.normal(0.0, 0.25, shape)
            else:
                value = rng.normal(0.0, 1.2 / np.sqrt(shape[1]), shape)
            state[name] = value.astype(np.float32)
        return state


def tiny() -> Checkpoint:
    """SmolLM2's build in small: tied embeddings, grouped-query attention, plain rope."""
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    return Checkpoint(config, seed=1, pre="smollm", bos=1, eos=2, add_bos=False)


def tiny_llama3() -> Checkpoint:
    """Llama 3's build in small: own output matrix and scaled rope; and what its descendants add: biases on the
    attention's matrices and a head size that is not width / heads."""
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        rope_theta=500000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
        attention_bias=True,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    return Checkpoint(config, seed=2, pre="llama-bpe", bos=0, eos=0, add_bos=True)


# ---------------------------------------------------------------------------------------------------------------
# Conversion to GGUF.


def head_dim(config: LlamaConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_factors(config: LlamaConfig) -> np.ndarray | None:
    """What each rope frequency is divided by under Llama 3's scaling (F64), or None without it."""
    scaling = config.rope_scaling
    if not scaling:
        return None
    assert scaling["rope_type"] == "llama3"
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    wavelengths = 2 * np.pi / rope_frequencies(config)
    smooth = (scaling["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    return 1.0 / ((1 - np.clip(smooth, 0, 1)) / factor + np.clip(smooth, 0, 1))


def rope_frequencies(config: LlamaConfig) -> np.ndarray:
    """Radians per position of each pair, before any scaling (F64)."""
    width = head_dim(config)
    return config.rope_theta ** -(np.arange(0, width, 2, dtype=np.float64) / width)


def gguf_name(name: str) -> str:
    """`transformers`' name of a weight → GGUF's."""
    top = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in top:
        return top[name]
    _, _, layer, *rest = name.split(".")
    part = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }[".".join(rest[:-1])]
    return f"blk.{layer}.{part}.{rest[-1]}"


def interleave_heads(name: str, config: LlamaConfig) -> int | None:
    """How many heads' rows GGUF reorders in this weight: `transformers` rotates element i with i + d/2, GGUF's
    llama 2i with 2i + 1, and the rows of Q and K are permuted to make up for it."""
    if ".q_proj." in name:
        return config.num_attention_heads
    if ".k_proj." in name:
        return config.num_key_value_heads
    return None


def to_interleaved(value: np.ndarray, heads: int) -> np.ndarray:
    return value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def from_interleaved(value: np.ndarray, heads: int) -> np.ndarray:
    return value.reshape(heads, -1, 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


@dataclass
class Model:
    """One file: a checkpoint and how its matrices are stored."""

    name: str
    checkpoint: Checkpoint
    matrices: Type
    embedding: Type | None = None
    """Storage of the token embedding where it differs from the other matrices'."""
    file_type: gguf.LlamaFileType = gguf.LlamaFileType.ALL_F32
    short_rows: list[int] = field(default_factory=lambda: list(range(0, 24, 2)))
    long: bool = False
    """Whether to compute a sequence past positions 512 and 1024 as well."""

    def storage(self, name: str, value: np.ndarray) -> Type:
        if value.ndim == 1:
            return Type.F32
        if name.endswith("embed_tokens.weight") and self.embedding is not None:
            return self.embedding
        return self.matrices

    def write(self, path: Path) -> dict[str, np.ndarray]:
        """Writes the file; returns the weights as stored, in F32 and `transformers`' order of rows."""
        config = self.checkpoint.config
        writer = gguf.GGUFWriter(path, "llama")
        self.write_metadata(writer)
        stored = {}
        for name, value in self.checkpoint.state().items():
            heads = interleave_heads(name, config)
            kind = self.storage(name, value)
            data = gguf.quants.quantize(value if heads is None else to_interleaved(value, heads), kind)
            writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
            back = gguf.quants.dequantize(data, kind).reshape(value.shape).astype(np.float32)
            stored[name] = back if heads is None else from_interleaved(back, heads)
        factors = rope_factors(config)
        if factors is not None:
            writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return stored

    def write_metadata(self, writer: gguf.GGUFWriter) -> None:
        checkpoint, config = self.checkpoint, self.checkpoint.config
        writer.add_name(self.name)
        writer.add_license("apache-2.0")
        writer.add_file_type(self.file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        if head_dim(config) * config.num_attention_heads != config.hidden_size:
            writer.add_key_length(head_dim(config))
            writer.add_value_length(head_dim(config))
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(head_dim(config))
        writer.add_vocab_size(config.vocab_size)
        tokens = vocabulary()
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(checkpoint.pre)
        writer.add_token_list(tokens)
        writer.add_token_types([gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in tokens])
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(checkpoint.bos)
        writer.add_eos_token_id(checkpoint.eos)
        writer.add_unk_token_id(0)
        writer.add_pad_token_id(2)
        writer.add_add_bos_token(checkpoint.add_bos)
        writer.add_add_space_prefix(False)
        writer.add_chat_template(CHAT_TEMPLATE)


# ---------------------------------------------------------------------------------------------------------------
# Expected results.


class ExactRope(torch.nn.Module):
    """Rope tables in F64 throughout; `transformers` builds them in F32 whatever the model's type."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        factors = rope_factors(config)
        self.frequencies = torch.from_numpy(rope_frequencies(config) / (1.0 if factors is None else factors))

    def forward(self, _x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[:, :, None].double() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def round_activations(kind: Type):
    """A hook that rounds a linear layer's input as the engine does for weights of this type: BF16 for BF16, int8
    with one scale per 32 elements for the quantised ones."""

    def hook(_module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (x,) = args
        if kind == Type.BF16:
            return (x.to(torch.bfloat16).to(x.dtype),)
        blocks = x.reshape(*x.shape[:-1], -1, 32)
        scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
        rounded = torch.where(scale > 0, torch.round(blocks / scale), torch.zeros_like(blocks)) * scale
        return (rounded.reshape(x.shape),)

    return hook


class Reference:
    """A model's stored weights in `transformers`, three times: in F32; in F64, to tell how far F32 is from exact;
    and in F64 with activations rounded as the engine rounds them, to tell what that alone does to the logits."""

    def __init__(self, model: Model, stored: dict[str, np.ndarray]) -> None:
        config = model.checkpoint.config
        state = {n: torch.from_numpy(v) for n, v in stored.items()}
        self.plain = self.load(config, state)
        self.exact = self.load(config, state).double()
        self.exact.model.rotary_emb = ExactRope(config)
        self.rounded = None
        if model.matrices not in (Type.F32, Type.F16):
            self.rounded = self.load(config, state).double()
            self.rounded.model.rotary_emb = ExactRope(config)
            for module in self.rounded.modules():
                if isinstance(module, torch.nn.Linear):
                    module.register_forward_pre_hook(round_activations(model.matrices))

    @staticmethod
    def load(config: LlamaConfig, state: dict[str, torch.Tensor]) -> LlamaForCausalLM:
        model = LlamaForCausalLM(config).eval()
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
        return model

    @staticmethod
    def logits(model: LlamaForCausalLM, ids: list[int]) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()

    def case(self, name: str, ids: list[int], rows: list[int], offset: int) -> tuple[dict, np.ndarray]:
        """A case of the manifest, and its logits followed by those with rounded activations, if any."""
        logits = self.logits(self.plain, ids)[rows]
        case = {"name": name, "ids": ids, "rows": rows, "offset": offset}
        case["std"] = round(float(logits.std()), 3)
        case["f64_error"] = relative_error(logits, self.logits(self.exact, ids)[rows])
        if self.rounded is None:
            return case, logits
        rounded = self.logits(self.rounded, ids)[rows].astype(np.float32)
        case["rounded_offset"] = offset + logits.size
        case["rounding_error"] = relative_error(rounded, logits)
        return case, np.concatenate([logits, rounded])

    def greedy(self, prompt: list[int], count: int) -> dict | None:
        """The most likely continuation and the least lead of a winner over its runner-up; None where rounding
        (F32's, or that of activations) takes away half of a lead or more."""
        ids, least = list(prompt), float("inf")
        for _ in range(count):
            row = self.logits(self.plain, ids)[-1]
            second, first = np.argpartition(row, -2)[-2:]
            lead = row[first] - row[second]
            other = self.logits(self.rounded or self.exact, ids)[-1]
            if lead - (other[first] - other[second]) > lead / 2 or lead < 0.02 or row.argmax() != other.argmax():
                return None
            least = min(least, float(lead))
            ids.append(int(first))
        return {"prompt": prompt, "ids": ids[len(prompt) :], "least_lead": round(least, 4)}


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b| / max |b|."""
    return float(f"{np.abs(a.astype(np.float64) - b).max() / np.abs(b).max():.2e}")


def greedy_case(reference: Reference, seed: int) -> dict:
    """A prompt with a clear greedy continuation that is lively and meets no special token."""
    rng = np.random.default_rng(seed)
    count = 16 if reference.rounded is None else 8
    for _ in range(2000):
        prompt = rng.integers(len(SPECIAL), len(vocabulary()), 6).tolist()
        case = reference.greedy(prompt, count)
        if case and len(set(case["ids"])) >= 5 and min(case["ids"]) >= len(SPECIAL):
            return case
    raise SystemExit("no clear greedy continuation found: choose other weights")


def perplexity_case(reference: Reference, checkpoint: Checkpoint, window: int = 512) -> dict:
    """Perplexity of text/english.txt by llama-perplexity's protocol: windows that do not overlap, the first token of
    each replaced by BOS if the tokenizer adds one, the second half scored."""
    path = FIXTURES / "text" / "english.txt"
    bos = [checkpoint.bos] if checkpoint.add_bos else []
    ids = bos + reference_tokenizer(checkpoint.pre).encode(path.read_text(encoding="utf-8")).ids
    half, losses = window // 2, []
    for start in range(0, len(ids) - window + 1, window):
        inputs = bos + ids[start + len(bos) : start + window]
        logits = torch.from_numpy(reference.logits(reference.plain, inputs)).double().log_softmax(dim=-1)
        losses += [-float(logits[i, inputs[i + 1]]) for i in range(half, window - 1)]
    value = round(float(np.exp(np.mean(losses))), 4)
    return {"file": f"text/{path.name}", "ctx": window, "scored": len(losses), "perplexity": value}


def chat_case(tokenizer: tokenizers.Tokenizer) -> dict:
    """One conversation through the chat template."""
    import jinja2

    messages = [{"role": "user", "content": "hello there"}]
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)
    text = template.render(messages=messages, add_generation_prompt=True)
    return {"messages": messages, "rendered": text, "ids": tokenizer.encode(text).ids}


def make_model(model: Model, directory: Path) -> None:
    path = directory / f"{model.name}.gguf"
    stored = model.write(path)
    reference = Reference(model, stored)
    checkpoint, vocab = model.checkpoint, model.checkpoint.config.vocab_size
    rng = np.random.default_rng(checkpoint.seed + 1000)
    plan = [("short", 24, model.short_rows)]
    if model.long:
        plan.append(("long", 1100, [*range(510, 515), *range(1022, 1027), 1099]))
    cases, rows, offset = [], [], 0
    for name, length, wanted in plan:
        ids = rng.integers(0, vocab, length).tolist()
        case, logits = reference.case(name, ids, wanted, offset)
        cases.append(case)
        rows.append(logits)
        offset += logits.size
    np.concatenate([r.ravel() for r in rows]).astype("<f4").tofile(directory / f"{model.name}.f32")

    tokenizer = reference_tokenizer(checkpoint.pre)
    bos = [checkpoint.bos] if checkpoint.add_bos else []
    config = checkpoint.config
    manifest = {
        "gguf": path.name,
        "gguf_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "logits": f"{model.name}.f32",
        "matrices": model.matrices.name,
        "embedding": (model.embedding or model.matrices).name,
        "config": {
            "vocab": vocab,
            "width": config.hidden_size,
            "hidden": config.intermediate_size,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": head_dim(config),
            "context": config.max_position_embeddings,
            "tied": config.tie_word_embeddings,
        },
        "cases": cases,
        "greedy": greedy_case(reference, checkpoint.seed + 2000),
        "texts": [{"text": t, "ids": bos + tokenizer.encode(t).ids} for t in TEXTS],
        "chat": chat_case(tokenizer),
        "perplexity": perplexity_case(reference, checkpoint),
    }
    write_json(directory / f"{model.name}.json", manifest)
    print(f"{model.name}: {path.stat().st_size:,} bytes")
    for case in cases:
        print("  ", {k: v for k, v in case.items() if k not in ("ids", "rows")})
    print("  ", manifest["greedy"])
    print("  ", manifest["perplexity"])


def write_json(path: Path, value: dict) -> None:
    """One key a line, lists of numbers on one line."""
    lines = [f'  "{k}": {json.dumps(v, ensure_ascii=False)}' for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------
# Dequantisation vectors.

# F16 bit patterns worth a block of their own: both zeros, the least and greatest denormals, the least normals, ones,
# the greatest finite values, and a third.
HALVES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x3555]


def dequant_blocks(kind: Type, rng: np.random.Generator) -> np.ndarray:
    """Raw bytes of one row of blocks: every byte value as quants, several times over, under the scales of `HALVES`
    in turn (for Q4_1, with minima from the same list in another order), then random blocks of ordinary scale."""
    if kind in (Type.F16, Type.BF16):
        # Every exponent but that of infinities and NaN, both signs, first, last and two inner mantissas.
        bits, largest = (10, 0x1F) if kind == Type.F16 else (7, 0xFF)
        mantissas = [0, 1, (1 << bits) // 3, (1 << bits) - 1]
        patterns = [s << 15 | e << bits | m for s in (0, 1) for e in range(largest) for m in mantissas]
        return np.array(patterns, dtype="<u2").view(np.uint8)
    quants = 32 if kind == Type.Q8_0 else 16
    minima = HALVES[5:] + HALVES[:5]
    blocks = []
    for i in range(3 * len(HALVES)):
        first = i * quants % 256
        values = np.roll(np.arange(256, dtype=np.uint8), -first)[:quants]
        blocks.append((HALVES[i % len(HALVES)], minima[i * 3 % len(minima)], rng.permutation(values)))
    for _ in range(16):
        scale, minimum = rng.normal(0, 0.05, 2).astype(np.float16).view(np.uint16)
        blocks.append((int(scale), int(minimum), rng.integers(0, 256, quants, dtype=np.uint8)))
    out = bytearray()
    for scale, minimum, values in blocks:
        out += scale.to_bytes(2, "little")
        if kind == Type.Q4_1:
            out += minimum.to_bytes(2, "little")
        out += values.tobytes()
    return np.frombuffer(bytes(out), dtype=np.uint8)


# Where the F16 scales of a block lie. MXFP4 has none: its first byte is an exponent.
HALF_PLACES = {
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
    Type.MXFP4: [],
}


def random_blocks(kind: Type) -> np.ndarray:
    """Raw bytes of one row of random blocks under the scales of `HALVES` in turn (a second scale takes the same list
    in another order), then under ordinary ones; for MXFP4 every exponent from 2 to 252, as Wushi takes smaller ones
    for zero and under greater ones values overflow."""
    rng = np.random.default_rng([3, kind.value])
    places, size = HALF_PLACES[kind], gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (len(HALVES) + 3 if places else 251, size), dtype=np.uint8)
    if not places:
        blocks[:, 0] = np.arange(2, 253)
    for i, block in enumerate(blocks):
        for turn, place in enumerate(places):
            half = HALVES[(i + 5 * turn) % len(HALVES)]
            if i >= len(HALVES):
                half = int(rng.normal(0, 0.05, 1).astype(np.float16).view(np.uint16)[0])
            block[place : place + 2] = np.frombuffer(half.to_bytes(2, "little"), dtype=np.uint8)
    return blocks.ravel()


def make_dequant(directory: Path) -> None:
    rng = np.random.default_rng(3)
    for kind in (Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q8_0, *HALF_PLACES):
        raw = random_blocks(kind) if kind in HALF_PLACES else dequant_blocks(kind, rng)
        values = gguf.quants.dequantize(raw.view(np.float16) if kind == Type.F16 else raw, kind).astype(np.float32)
        assert np.isfinite(values).all()
        raw.tofile(directory / f"{kind.name}.bin")
        values.ravel().astype("<f4").tofile(directory / f"{kind.name}.f32")
        print(f"dequant {kind.name}: {raw.size:,} bytes, {values.size:,} values")


MODELS = [
    Model("llama-tiny-f32", tiny(), Type.F32, long=True),
    Model("llama-tiny-q8_0", tiny(), Type.Q8_0, file_type=gguf.LlamaFileType.MOSTLY_Q8_0),
    Model("llama-tiny-q4_0", tiny(), Type.Q4_0, file_type=gguf.LlamaFileType.MOSTLY_Q4_0),
    Model(
        "llama-tiny-q4_1",
        tiny(),
        Type.Q4_1,
        embedding=Type.Q8_0,
        file_type=gguf.LlamaFileType.MOSTLY_Q4_1,
    ),
    Model("llama3-tiny-f16", tiny_llama3(), Type.F16, file_type=gguf.LlamaFileType.MOSTLY_F16),
    Model("llama3-tiny-bf16", tiny_llama3(), Type.BF16, file_type=gguf.LlamaFileType.MOSTLY_BF16),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=FIXTURES, help="where to write (default: tests/fixtures)")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"numpy {np.__version__}, tokenizers {tokenizers.__version__}")
    for part in ("models", "dequant"):
        (args.output / part).mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        make_model(model, args.output / "models")
    make_dequant(args.output / "dequant")


if __name__ == "__main__":
    main()
