"""Checkpoints of PyTorch for the tests.

Writes `tests/fixtures/wan/wan21/original/vae.pth` (the VAE of `video_oracle.py` in its original names, as `torch.save`
writes a state dict) from the safetensors file that the oracle left, and small ones of every kind that readers must
tell apart to `crates/formats/tests/fixtures/torch`. Needs torch and safetensors.

    python tools/torch_fixtures.py ORACLE/original/vae.safetensors
"""

import collections
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
SMALL = ROOT / "crates/formats/tests/fixtures/torch"


def values(*shape, dtype=torch.float32):
    """0, 1/8, 2/8 … which every type holds exactly."""
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float32) / 8).reshape(shape).to(dtype)


def small():
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
    torch.save(sound, SMALL / "sound.pth")
    torch.save({"epoch": 3, "state_dict": dict(f32=values(2, 3))}, SMALL / "wrapped.pth")
    torch.save(dict(f32=values(2, 3)), SMALL / "protocol4.pth", pickle_protocol=4)
    torch.save(dict(f32=values(2, 3)), SMALL / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(dict(turned=values(2, 3).t()), SMALL / "transposed.pth")
    torch.save(dict(layer=torch.nn.Linear(2, 2)), SMALL / "module.pth")
    torch.save([values(2)], SMALL / "list.pth")


def main():
    torch.save(
        collections.OrderedDict(sorted(load_file(sys.argv[1]).items())),
        ROOT / "tests/fixtures/wan/wan21/original/vae.pth",
    )
    small()


main()
