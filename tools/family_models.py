"""The tiny checkpoints that family_fixtures.py makes: their configurations, tokenizers, weights and cases.

Every one is small in every direction, yet has what its family has: odd numbers of heads, biases, norms on queries and
keys, experts, windows that the cases cross, and scaled rope whose original length the cases pass. `off` lists what can be
taken away from the configuration again; the script refuses a checkpoint whose logits would not show it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from make_fixtures import CHAT_TEMPLATE, LLAMA3_SPLIT, MERGES, SPECIAL, vocabulary
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

# Qwen2's splitting pattern, as its tokenizer.json has it.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# Sampling as published with instruction-tuned models.
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}


@dataclass(frozen=True)
class Case:
    """A sequence of random tokens, and the positions whose logits are kept."""

    name: str
    length: int
    rows: list[int]
    only: str | None = None
    """`directory` or `gguf` where the other does not say what the result needs."""
    context: int | None = None
    """The context length that the model must be opened with, where the result depends on it."""
    changes: dict[str, Any] = field(default_factory=dict)
    """What of the configuration is different for this case."""


@dataclass(frozen=True)
class Greedy:
    """A prompt of random tokens with a greedy continuation."""

    length: int
    only: str | None = None
    context: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)


SHORT = Case("short", 24, list(range(0, 24, 2)))


@dataclass
class Checkpoint:
    """One model: how it is made, and what it is asked."""

    name: str
    family: str
    model: type[transformers.PreTrainedModel]
    config: transformers.PretrainedConfig
    seed: int
    pre: str
    """`tokenizer.ggml.pre`."""
    tokenizer: type[transformers.PreTrainedTokenizerFast] = transformers.PreTrainedTokenizerFast
    storage: str = "F16"
    bos: int = 0
    eos: tuple[int, ...] = (2, 0)
    add_bos: bool = False
    template_file: bool = False
    """Whether the chat template is a file of its own; otherwise tokenizer_config.json has it."""
    shard: str = "1GB"
    """The greatest size of a safetensors file."""
    gguf: bool = True
    """Whether a GGUF file can say all that the configuration says."""
    cases: tuple[Case, ...] = (SHORT,)
    greedy: Greedy = Greedy(6)
    more_greedy: tuple[Greedy, ...] = ()
    off: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """For each feature, a case and the changes of the configuration that take the feature away."""
    perplexity_ctx: int = 512
    least_off: float = 0.01
    """How far, in max|a-b| / max|b|, the logits must move without a feature."""

    def state(self) -> dict[str, torch.Tensor]:
        """Weights by name, in F32 but representable in the storage type. Scales keep the logits' deviation at 1 to 3,
        attention uneven, and no norm or bias near its neutral value, so that leaving any tensor out changes the result."""
        rng = np.random.default_rng(self.seed)
        state = {}
        shapes = {n: tuple(p.shape) for n, p in self.model(self.config).named_parameters()}
        for name, shape in sorted(shapes.items()):
            if name.endswith("norm.weight") or name.endswith("LayerNorm.weight"):
                value = rng.uniform(0.5, 1.5, shape)
                if self.family == "gemma3":
                    # Stored less one, and in steps that survive the converter's adding it in F16.
                    value = np.round((value - 1.0) * 1024) / 1024
            elif name.endswith(".bias"):
                value = rng.normal(0.0, 0.3, shape)
            elif "embed" in name:
                value = rng.normal(0.0, 0.25, shape)
            else:
                value = rng.normal(0.0, 1.2 / np.sqrt(shape[1]), shape)
            state[name] = torch.from_numpy(value.astype(np.float32)).to(DTYPES[self.storage]).float()
        return state


def byte_tokenizer(checkpoint: Checkpoint) -> tokenizers.Tokenizer:
    """The tokenizer of make_fixtures.py, split as `pre` says, with the settings of the family's tokenizer.json."""
    tokens = vocabulary()
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=[tuple(m.split(" ")) for m in MERGES],
            ignore_merges=checkpoint.pre == "llama-bpe",
        )
    )
    if checkpoint.pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    first = {
        "smollm": pre_tokenizers.Digits(individual_digits=True),
        "llama-bpe": pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
        "dbrx": pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
        "qwen2": pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
    }[checkpoint.pre]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=checkpoint.pre == "smollm")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, last])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    if checkpoint.add_bos:
        bos = SPECIAL[checkpoint.bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, checkpoint.bos)]
        )
    return tokenizer


def published_tokenizer(checkpoint: Checkpoint) -> transformers.PreTrainedTokenizerFast:
    tokenizer = checkpoint.tokenizer(
        tokenizer_object=byte_tokenizer(checkpoint),
        bos_token=SPECIAL[checkpoint.bos] if checkpoint.add_bos else None,
        eos_token=SPECIAL[checkpoint.eos[0]],
        unk_token=None,
        pad_token=SPECIAL[0],
        clean_up_tokenization_spaces=False,
        model_max_length=checkpoint.config.max_position_embeddings,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def sizes(**others: Any) -> dict[str, Any]:
    """What all configurations share unless `others` says otherwise: an odd number of heads, one for keys and values."""
    return {
        "vocab_size": len(vocabulary()),
        "hidden_size": 48,
        "intermediate_size": 72,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **others,
    }


def around(*positions: int) -> list[int]:
    """Each position with the one before and the one after."""
    return sorted({p + d for p in positions for d in (-1, 0, 1)})


def qwen2() -> list[Checkpoint]:
    """Biases on Q, K and V alone; the output matrix is the embedding's, or its own."""
    parts = {"model": transformers.Qwen2ForCausalLM, "family": "qwen2", "pre": "qwen2"}
    parts["tokenizer"] = transformers.Qwen2TokenizerFast
    config = transformers.Qwen2Config
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    long = Case("beyond", 200, [0, 30, *around(64), 128, 160, 199], context=256)
    return [
        Checkpoint("qwen2-tiny", config=config(**sizes(rope_theta=1e6)), seed=11, **parts),
        Checkpoint(
            "qwen2-tiny-untied",
            config=config(**sizes(rope_theta=1e6, tie_word_embeddings=False)),
            seed=12,
            storage="BF16",
            shard="70KB",
            **parts,
        ),
        Checkpoint(
            "qwen2-tiny-yarn",
            config=config(**sizes(max_position_embeddings=256, rope_scaling=yarn)),
            seed=13,
            cases=(SHORT, long),
            off={
                "yarn": ("beyond", {"rope_scaling": None}),
                "attention factor": ("beyond", {"rope_scaling": {**yarn, "attention_factor": 1.0}}),
            },
            perplexity_ctx=256,
            **parts,
        ),
    ]


def qwen3() -> list[Checkpoint]:
    """Norms on the heads of Q and K; heads that together are wider than the model."""
    config = transformers.Qwen3Config(**sizes(head_dim=24, rope_theta=1e6))
    return [
        Checkpoint(
            "qwen3-tiny",
            "qwen3",
            transformers.Qwen3ForCausalLM,
            config,
            seed=21,
            pre="qwen2",
            tokenizer=transformers.Qwen2TokenizerFast,
        )
    ]


def qwen3moe() -> list[Checkpoint]:
    """Eight experts, three of them used; their weights summing to one, or as the softmax leaves them."""
    shape = sizes(
        head_dim=24,
        rope_theta=1e6,
        num_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=24,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )
    parts = {"model": transformers.Qwen3MoeForCausalLM, "family": "qwen3moe", "pre": "qwen2"}
    parts["tokenizer"] = transformers.Qwen2TokenizerFast
    config = transformers.Qwen3MoeConfig
    off = {
        "norm_topk_prob": ("short", {"norm_topk_prob": False}),
        "third expert": ("short", {"num_experts_per_tok": 2}),
    }
    return [
        Checkpoint("qwen3moe-tiny", config=config(**shape, norm_topk_prob=True), seed=33, off=off, **parts),
        Checkpoint(
            "qwen3moe-tiny-raw",
            config=config(**{**shape, "num_hidden_layers": 1}, norm_topk_prob=False),
            seed=43,
            off={"norm_topk_prob": ("short", {"norm_topk_prob": True})},
            gguf=False,
            **parts,
        ),
    ]


def gemma3() -> list[Checkpoint]:
    """Norms before and after, scaled embeddings, GELU, windows in all layers but each sixth, and two rope bases. A GGUF
    file has no place for `query_pre_attn_scalar`, nor for layers that follow another pattern."""
    window = Case("window", 100, [0, *around(24), 48, 70, 99])
    parts = {"model": transformers.Gemma3ForCausalLM, "family": "gemma3", "pre": "smollm", "add_bos": True}
    shape = sizes(
        hidden_size=32,
        intermediate_size=40,
        num_attention_heads=2,
        head_dim=24,
        sliding_window=24,
        rope_theta=1e6,
        rope_local_base_freq=10000.0,
        hidden_activation="gelu_pytorch_tanh",
    )
    full = {"layer_types": ["full_attention"] * 7}
    config = transformers.Gemma3TextConfig
    linear = {"rope_type": "linear", "factor": 8.0}
    return [
        Checkpoint(
            "gemma3-tiny",
            config=config(**{**shape, "num_hidden_layers": 7, "query_pre_attn_scalar": 24}),
            seed=41,
            cases=(SHORT, window),
            greedy=Greedy(20),
            off={
                "window": ("window", full),
                "local rope": ("short", {"rope_local_base_freq": 1e6}),
                "global rope": ("window", {"rope_theta": 1e4}),
            },
            **parts,
        ),
        Checkpoint(
            "gemma3-tiny-linear",
            config=config(**{**shape, "num_hidden_layers": 6, "query_pre_attn_scalar": 24, "rope_scaling": linear}),
            seed=42,
            cases=(SHORT, window),
            greedy=Greedy(20),
            off={"linear": ("window", {"rope_scaling": None})},
            **parts,
        ),
        Checkpoint(
            "gemma3-tiny-scalar",
            config=config(
                **{**shape, "num_hidden_layers": 3, "query_pre_attn_scalar": 10},
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            ),
            seed=43,
            cases=(SHORT, window),
            greedy=Greedy(20),
            gguf=False,
            off={"query_pre_attn_scalar": ("short", {"query_pre_attn_scalar": 24})},
            **parts,
        ),
    ]


def phi3() -> list[Checkpoint]:
    """Q, K and V in one matrix, gate and up in another; a window; rope with one set of factors up to the original
    length and another for contexts beyond. (Not called phi3: by that name llama.cpp expects Phi-3's own special tokens.)"""
    parts = {"model": transformers.Phi3ForCausalLM, "family": "phi3", "pre": "dbrx"}
    parts["tokenizer"] = transformers.GPT2TokenizerFast
    config = transformers.Phi3Config
    # A head's 16 elements are 8 pairs.
    scaling = {
        "type": "longrope",
        "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0],
        "long_factor": [1.1, 1.4, 1.9, 2.6, 3.8, 5.5, 8.0, 12.0],
    }
    plain = sizes(tie_word_embeddings=False, sliding_window=32, original_max_position_embeddings=1024)
    stretched = sizes(
        tie_word_embeddings=False,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        sliding_window=None,
        rope_scaling=scaling,
    )
    short = {**scaling, "long_factor": scaling["short_factor"]}
    flat = {**scaling, "short_factor": [1.0] * 8}
    return [
        Checkpoint(
            "phi-tiny",
            config=config(**plain),
            seed=51,
            template_file=True,
            cases=(SHORT, Case("window", 100, [0, *around(32), 64, 80, 99])),
            greedy=Greedy(6),
            more_greedy=(Greedy(40),),
            off={"window": ("window", {"sliding_window": None})},
            perplexity_ctx=32,
            **parts,
        ),
        Checkpoint(
            "phi-tiny-longrope",
            config=config(**stretched),
            seed=52,
            cases=(
                Case("short", 24, list(range(0, 24, 2)), context=64),
                Case("full", 64, [0, 31, 62, 63], context=64),
                Case("long", 100, [0, 10, 23, 40, *around(64), 80, 99], context=256),
            ),
            greedy=Greedy(6, context=64),
            more_greedy=(Greedy(70, context=256),),
            off={
                "long factors": ("long", {"rope_scaling": short}),
                "short factors": ("short", {"rope_scaling": flat}),
                "attention factor": ("short", {"max_position_embeddings": 64}),
            },
            perplexity_ctx=64,
            **parts,
        ),
    ]


def mistral() -> list[Checkpoint]:
    """Llama with a window in every layer. llama.cpp's converter leaves the window out, so the GGUF file's results
    beyond it are those without one."""
    config = transformers.MistralConfig(
        **sizes(tie_word_embeddings=False, sliding_window=32, rope_theta=1e6, rms_norm_eps=1e-5, head_dim=None)
    )
    rows = [0, *around(32), 64, 80, 99]
    without = {"sliding_window": None}
    return [
        Checkpoint(
            "mistral-tiny",
            "mistral",
            transformers.MistralForCausalLM,
            config,
            seed=61,
            pre="llama-bpe",
            add_bos=True,
            eos=(2,),
            cases=(
                SHORT,
                Case("window", 100, rows, only="directory"),
                Case("long", 600, [33, *around(512), 544, 599], only="directory"),
                Case("no window", 100, rows, only="gguf", changes=without),
            ),
            more_greedy=(Greedy(30, only="directory"), Greedy(30, only="gguf", changes=without)),
            off={"window": ("window", without)},
            perplexity_ctx=32,
        )
    ]


def llama() -> list[Checkpoint]:
    """Scaled rope: all frequencies alike, and Llama 3's way, which the converter writes as a tensor."""
    parts = {"model": transformers.LlamaForCausalLM, "family": "llama", "pre": "llama-bpe", "add_bos": True}
    long = Case("beyond", 200, [0, 30, *around(64), 128, 160, 199])
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = transformers.LlamaConfig
    return [
        Checkpoint(
            "llama-tiny-linear",
            config=config(
                **sizes(
                    hidden_size=32,
                    intermediate_size=48,
                    num_attention_heads=2,
                    rms_norm_eps=1e-5,
                    rope_scaling={"rope_type": "linear", "factor": 4.0},
                )
            ),
            seed=71,
            storage="F32",
            cases=(SHORT, long),
            off={"linear": ("short", {"rope_scaling": None})},
            **parts,
        ),
        Checkpoint(
            "llama-tiny-llama3",
            config=config(**sizes(rope_theta=500000.0, rms_norm_eps=1e-5, rope_scaling=llama3, attention_bias=True)),
            seed=72,
            cases=(SHORT, long),
            off={"llama3": ("beyond", {"rope_scaling": None})},
            **parts,
        ),
    ]


def checkpoints() -> list[Checkpoint]:
    every = [*qwen2(), *qwen3(), *llama(), *mistral(), *qwen3moe(), *gemma3(), *phi3()]
    assert len({c.name for c in every}) == len(every)
    return every
