#!/usr/bin/env python3
"""Makes the seeds of the safetensors and folder fuzz corpora: small sound files, and files with one thing wrong each.

    python3 tools/safetensors_corpus.py fuzz/corpus

Names say what a reader must do: `valid-` is read, `bad-` is refused. What a fuzzer finds goes beside them.
"""

import json
import struct
import sys
from pathlib import Path


def with_header(header, data=b"", length=None):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(dtype, shape, start, end, **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end], **more}


def file(tensors, data=b"", **more):
    return with_header(json.dumps({**tensors, **more}), data)


def layer(index, start):
    """The tensors of a tiny layer, and where they end."""
    sizes = {
        "input_layernorm": [4], "self_attn.q_proj": [8, 4], "self_attn.k_proj": [4, 4], "self_attn.v_proj": [4, 4],
        "self_attn.o_proj": [4, 8], "post_attention_layernorm": [4], "mlp.gate_proj": [6, 4], "mlp.up_proj": [6, 4],
        "mlp.down_proj": [4, 6],
    }
    tensors = {}
    for name, shape in sizes.items():
        end = start + 2 * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        tensors[f"model.layers.{index}.{name}.weight"] = tensor("BF16", shape, start, end)
        start = end
    return tensors, start


def model():
    tensors = {"model.embed_tokens.weight": tensor("BF16", [6, 4], 0, 48)}
    start = 48
    for index in range(2):
        part, start = layer(index, start)
        tensors.update(part)
    tensors["model.norm.weight"] = tensor("F32", [4], start, start + 16)
    return file(tensors, bytes(range(1, 128)) * ((start + 16) // 127) + bytes((start + 16) % 127))


def seeds():
    one = {"t": tensor("F32", [2], 0, 8)}
    eight = bytes(8)
    yield "valid-model", model()
    yield "valid-empty", file({})
    yield "valid-metadata", file(one, eight, __metadata__={"format": "pt"})
    yield "valid-odd-types", file({
        "a": tensor("I64", [1], 0, 8), "b": tensor("BOOL", [2], 8, 10), "c": tensor("F8_E4M3", [2], 10, 12),
        "d": tensor("F4", [4], 12, 14), "e": tensor("F9_NEW", [1], 14, 15),
    }, bytes(15))
    yield "valid-no-elements", file({"a": tensor("F32", [0, 4], 0, 0), "b": tensor("F32", [], 0, 4)}, bytes(4))
    yield "valid-spaces", with_header(json.dumps(one) + "    ", eight)
    yield "valid-not-in-order", file({"b": tensor("F32", [1], 4, 8), "a": tensor("F32", [1], 0, 4)}, eight)
    huge = 2**64 - 1
    yield "bad-nothing", b""
    yield "bad-short", b"\x08\0\0"
    yield "bad-length-huge", with_header("{}", length=huge)
    yield "bad-length-beyond-end", with_header("{}", length=3)
    yield "bad-no-object", with_header("[]")
    yield "bad-no-json", with_header("{")
    yield "bad-text", with_header(b'{"\xff":1}')
    yield "bad-nested", with_header("{" + '"a":{' * 5000)
    yield "bad-duplicate", with_header('{"t":%s,"t":%s}' % ((json.dumps(one["t"]),) * 2), eight)
    yield "bad-entry", with_header('{"t":3}')
    yield "bad-entry-lacks", with_header('{"t":{"dtype":"F32","shape":[2]}}', eight)
    yield "bad-entry-more", file({"t": tensor("F32", [2], 0, 8, strides=[1])}, eight)
    yield "bad-offsets-three", with_header('{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}}', eight)
    yield "bad-offsets-swapped", file({"t": tensor("F32", [2], 8, 0)}, eight)
    yield "bad-offsets-beyond-end", file({"t": tensor("F32", [3], 0, 12)}, eight)
    yield "bad-offsets-huge", file({"t": tensor("F32", [2], huge - 8, huge)}, eight)
    yield "bad-offsets-negative", file({"t": tensor("F32", [2], -8, 0)}, eight)
    yield "bad-offsets-float", file({"t": tensor("F32", [2], 0, 8.5)}, eight)
    yield "bad-overlap", file({"t": tensor("F32", [2], 0, 8), "u": tensor("F32", [2], 4, 12)}, bytes(12))
    yield "bad-same-bytes", file({"t": tensor("F32", [2], 0, 8), "u": tensor("F32", [2], 0, 8)}, eight)
    yield "bad-gap", file({"t": tensor("F32", [2], 0, 8), "u": tensor("F32", [2], 12, 20)}, bytes(20))
    yield "bad-left-over", file(one, bytes(9))
    yield "bad-shape-overflow", file({"t": tensor("F32", [2**40, 2**40], 0, 8)}, eight)
    yield "bad-shape-huge", file({"t": tensor("F32", [huge], 0, 8)}, eight)
    yield "bad-shape-wrong", file({"t": tensor("F32", [3], 0, 8)}, eight)
    yield "bad-dimensions", file({"t": tensor("F32", [1] * 40 + [2], 0, 8)}, eight)
    yield "bad-name-long", file({"t" * 2000: tensor("F32", [2], 0, 8)}, eight)
    yield "bad-truncated", model()[:-1]
    yield "bad-gguf", b"GGUF\x03\0\0\0" + bytes(16)
    yield "bad-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 32,
    "max_position_embeddings": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "vocab_size": 291,
}


def decoder(shapes):
    tensors, start = {}, 0
    for name, shape in shapes.items():
        size = 2
        for n in shape:
            size *= n
        tensors[name] = tensor("BF16", shape, start, start + size)
        start += size
    return file(tensors, b"\x10\x3c" * (start // 2))


def llama(**more):
    layer = "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": [291, 32], f"{layer}input_layernorm.weight": [32],
        f"{layer}self_attn.q_proj.weight": [32, 32], f"{layer}self_attn.k_proj.weight": [16, 32],
        f"{layer}self_attn.v_proj.weight": [16, 32], f"{layer}self_attn.o_proj.weight": [32, 32],
        f"{layer}post_attention_layernorm.weight": [32], f"{layer}mlp.gate_proj.weight": [32, 32],
        f"{layer}mlp.up_proj.weight": [32, 32], f"{layer}mlp.down_proj.weight": [32, 32], "model.norm.weight": [32],
    }
    return json.dumps({**CONFIG, **more}).encode() + b"\0" + decoder({**shapes, **more.pop("shapes", {})})


def folders():
    """`config.json`, a zero, and the weights."""
    yield "valid-llama", llama()
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    yield "valid-llama3", llama(rope_scaling={**scaling, "original_max_position_embeddings": 16})
    yield "valid-sampling", llama(temperature=0.5, top_k=3, eos_token_id=[1, 2])
    yield "bad-class", llama(architectures=["NoSuchForCausalLM"])
    yield "bad-class-missing", llama(architectures=[])
    yield "bad-activation", llama(hidden_act="tanh")
    yield "bad-layers", llama(num_hidden_layers=4_000_000_000)
    yield "bad-layers-few", llama(num_hidden_layers=2)
    yield "bad-heads", llama(num_attention_heads=3)
    yield "bad-heads-huge", llama(num_attention_heads=4_294_967_295)
    yield "bad-head-dim", llama(head_dim=4_294_967_294, rope_scaling={**scaling, "original_max_position_embeddings": 16})
    yield "bad-scaling", llama(rope_scaling={**scaling, "factor": -1})
    yield "bad-scaling-zero", llama(rope_scaling={**scaling, "high_freq_factor": 0})
    yield "bad-scaling-unknown", llama(rope_scaling={"rope_type": "dynamic", "factor": 2})
    yield "bad-quantised", llama(quantization_config={"quant_method": "gptq"})
    yield "bad-number", llama(rms_norm_eps="small")
    yield "bad-temperature", llama(temperature="hot")
    yield "bad-experts", llama(
        architectures=["Qwen3MoeForCausalLM"], num_experts=4_000_000_000, num_experts_per_tok=1,
        moe_intermediate_size=32)
    yield "bad-config-only", json.dumps(CONFIG).encode()
    yield "bad-truncated", llama()[:-1]


def main():
    folder = Path(sys.argv[1])
    for below, end, made in [("safetensors", "safetensors", seeds()), ("folder", "bin", folders())]:
        (folder / below).mkdir(parents=True, exist_ok=True)
        for name, data in made:
            (folder / below / f"{name}.{end}").write_bytes(data)


if __name__ == "__main__":
    main()
