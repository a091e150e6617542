#!/usr/bin/env python3
"""Makes a video model with random weights of Wan 2.1's width, as a diffusers folder, to measure speed with.

    benches/video_models.py FOLDER [--layers 4] [--dtype bfloat16]

The denoiser has the width of the model of 1.3 billion parameters (1536, 12 heads, 8960 inside) with few layers, the decoder
is whole, the text encoder is as small as the denoiser allows. Needs torch, diffusers and transformers; nothing else does.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

ROOT = Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "tests/fixtures/wan/wan21/pipe"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    args.folder.mkdir(parents=True, exist_ok=True)
    denoiser = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=12, attention_head_dim=128, in_channels=16, out_channels=16,
        text_dim=4096, freq_dim=256, ffn_dim=8960, num_layers=args.layers, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", eps=1e-6,
    )
    denoiser.to(dtype).save_pretrained(args.folder / "transformer")
    AutoencoderKLWan().save_pretrained(args.folder / "vae")
    text = UMT5Config(
        vocab_size=113, d_model=4096, d_kv=64, d_ff=64, num_layers=1, num_heads=1, feed_forward_proj="gated-gelu",
        dropout_rate=0.0, is_encoder_decoder=True,
    )
    UMT5EncoderModel(text).to(dtype).save_pretrained(args.folder / "text_encoder")
    for name in ["tokenizer", "scheduler"]:
        shutil.copytree(FIXTURE / name, args.folder / name, dirs_exist_ok=True)
    shutil.copy(FIXTURE / "model_index.json", args.folder)


if __name__ == "__main__":
    main()
