#!/usr/bin/env python3
"""Makes checkpoints of PyTorch for the tests.

    pip install torch safetensors
    python3 tools/torch_fixtures.py ORACLE/original/vae.safetensors

Writes `tests/fixtures/wan/wan21/original/vae.pth`, the VAE that `video_oracle.py` left, as `torch.save` writes a state dict; and the seeds
in `fuzz/corpus/part`: small checkpoints of every kind that readers must tell apart, safetensors with scaled floats of eight bits, and a GGUF
file with a tensor that was flattened. Names say what a reader must do: `valid-` is read, `bad-` is refused.
"""

import collections
import os
import pickle
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import gguf_corpus

ROOT = Path(__file__).resolve().parent.parent
SMALL = ROOT / "fuzz/corpus/part"


def values(*shape, dtype=torch.float32):
    """0, 1/8, 2/8 … which every type holds exactly."""
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float32) / 8).reshape(shape).to(dtype)


def small():
    torch.manual_seed(0)
    SMALL.mkdir(parents=True, exist_ok=True)
    whole = values(6, 4)
    sound = collections.OrderedDict(
        f32=values(2, 3),
        f16=values(3, 2, dtype=torch.float16),
        bf16=values(1, 2, 1, 2, 2, dtype=torch.bfloat16),
        f8=values(2, 2, dtype=torch.float8_e4m3fn),
        i64=torch.arange(3),
        scalar=torch.tensor(2.5),
        # Views of one storage: rows from the middle, and all of it again.
        rows=whole[2:4],
        whole=whole,
        # Strides of dimensions of one element say nothing.
        one=values(4, 1).transpose(0, 1),
        parameter=torch.nn.Parameter(values(2)),
    )
    torch.save(sound, SMALL / "valid-sound.pth")
    # With the versions of its modules as an attribute of the dictionary.
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)).state_dict(), SMALL / "valid-module-state.pth")
    torch.save({"epoch": 3, "state_dict": dict(f32=values(2, 3))}, SMALL / "valid-wrapped.pth")
    torch.save(dict(f32=values(2, 3)), SMALL / "valid-protocol-4.pth", pickle_protocol=4)
    torch.save(dict(f32=values(2, 3)), SMALL / "bad-legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(dict(turned=values(2, 3).t()), SMALL / "bad-transposed.pth")
    torch.save(dict(layer=torch.nn.Linear(2, 2)), SMALL / "bad-module.pth")
    torch.save([values(2)], SMALL / "bad-list.pth")
    torch.save({"epoch": 3, "note": "none"}, SMALL / "bad-without-tensors.pth")


class Runs:
    def __reduce__(self):
        return os.system, ("echo it ran",)


def changed():
    """Archives that `torch.save` does not write."""
    with zipfile.ZipFile(SMALL / "valid-protocol-4.pth") as sound:
        entries = {name.split("/", 1)[1]: sound.read(name) for name in sound.namelist()}

    def archive(name, compression=zipfile.ZIP_STORED, **more):
        with zipfile.ZipFile(SMALL / name, "w", compression) as out:
            for entry, data in {**entries, **more}.items():
                if data is not None:
                    out.writestr(zipfile.ZipInfo(f"archive/{entry.replace('__', '.')}"), data, compression)

    archive("valid-rewritten.pth")
    archive("bad-compressed.pth", zipfile.ZIP_DEFLATED)
    archive("bad-runs.pth", data__pkl=pickle.dumps({"t": Runs()}, 2), **{"data.pkl": None})
    archive("bad-big-endian.pth", byteorder=b"big")
    archive("bad-script.pth", constants__pkl=b"")
    archive("bad-no-pickle.pth", **{"data.pkl": None})
    archive("bad-no-storage.pth", **{"data/0": None})
    archive("bad-short-storage.pth", **{"data/0": bytes(23)})


def others():
    """What is no checkpoint of PyTorch, but a part of a pipeline."""
    eight = values(2, 3, dtype=torch.float8_e4m3fn)
    scaled = {
        "one.weight": eight, "one.scale_weight": torch.tensor(0.5), "one.scale_input": torch.tensor(3.0),
        "rows.weight": eight.clone(), "rows.weight_scale": torch.tensor([[0.5], [2.0]]),
        "plain.weight": eight.clone(), "plain.bias": values(2), "wide.weight": values(2, 2, dtype=torch.float8_e5m2),
        "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    save_file(scaled, SMALL / "valid-scaled.safetensors")
    save_file({**scaled, "one.scale_weight": torch.tensor(float("nan"))}, SMALL / "bad-scale-nan.safetensors")
    save_file({**scaled, "one.scale_weight": values(3)}, SMALL / "bad-scale-shape.safetensors")
    save_file({**scaled, "two.scale_weight": torch.tensor(1.0)}, SMALL / "bad-scale-of-nothing.safetensors")
    nan = torch.tensor([0x38, 0x7F], dtype=torch.uint8).view(torch.float8_e4m3fn)
    save_file({"t": nan}, SMALL / "valid-nan.safetensors")
    one = [gguf_corpus.tensor("patch", [8], gguf_corpus.DTYPE_F32, 0)]

    def flat(shape):
        entry = gguf_corpus.entry("comfy.gguf.orig_shape.patch", gguf_corpus.ARRAY, (gguf_corpus.I32, shape))
        return gguf_corpus.file([entry], one, gguf_corpus.F32_DATA)

    (SMALL / "valid-flattened.gguf").write_bytes(flat([2, 2, 1, 2, 1]))
    (SMALL / "bad-flattened.gguf").write_bytes(flat([2, 2, 1, 2, 2]))
    (SMALL / "bad-flattened-negative.gguf").write_bytes(flat([-2, -2, 1, 2, 1]))


def main():
    torch.save(
        collections.OrderedDict(sorted(load_file(sys.argv[1]).items())),
        ROOT / "tests/fixtures/wan/wan21/original/vae.pth",
    )
    small()
    changed()
    others()


if __name__ == "__main__":
    main()
