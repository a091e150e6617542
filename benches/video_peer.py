#!/usr/bin/env python3
"""diffusers' side of video_side_by_side.py: loads one network once, then runs it for every line on standard input.

Prints seconds of one run a line; with `memory`, the most memory the process had, in bytes.
"""

import argparse
import resource
import sys
import time

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel


def denoiser(args: argparse.Namespace, frames: int):
    dtype = getattr(torch, args.dtype)
    model = WanTransformer3DModel.from_pretrained(args.model, subfolder="transformer", torch_dtype=dtype).eval()
    latent = torch.randn(1, 16, frames, args.height // 8, args.width // 8, dtype=dtype)
    text = torch.randn(1, 512, 4096, dtype=dtype)
    step = torch.tensor([500])
    return lambda: model(hidden_states=latent, timestep=step, encoder_hidden_states=text, return_dict=False)


def decoder(args: argparse.Namespace, frames: int):
    model = AutoencoderKLWan.from_pretrained(args.model, subfolder="vae", torch_dtype=getattr(torch, args.dtype)).eval()
    latent = torch.randn(1, 16, frames, args.height // 8, args.width // 8, dtype=getattr(torch, args.dtype))
    return lambda: model.decode(latent, return_dict=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("network", choices=["denoiser", "decoder"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--frames", type=int, default=17)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = {"denoiser": denoiser, "decoder": decoder}[args.network](args, (args.frames - 1) // 4 + 1)
    with torch.no_grad():
        for line in sys.stdin:
            if line.strip() == "memory":
                print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
                continue
            begun = time.perf_counter()
            run()
            print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main()
