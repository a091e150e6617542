#!/usr/bin/env python3
"""Measures Wushi beside diffusers on torch: same shapes, same threads, same minutes. Prints a Markdown table.

    python3 -m venv peer && peer/bin/pip install torch diffusers transformers accelerate
    peer/bin/python benches/video_models.py MODEL
    cargo build --release
    benches/video_side_by_side.py MODEL --python peer/bin/python --threads 2 --pairs 3

In each pair everything runs once, one after the other, every other pair in the reverse order; what counts is the median of
the pairs' ratios. torch's denoiser runs in BF16, once as it comes and once without AMX (`ONEDNN_MAX_CPU_ISA`), its decoder in F32.
To be run by hand, on a machine that does nothing else; neither tests nor CI use it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parent.parent


class Peer:
    """A process of video_peer.py that has one network loaded."""

    def __init__(self, args: argparse.Namespace, network: str, dtype: str, without_amx: bool = False):
        command = [args.python, str(ROOT / "benches/video_peer.py"), str(args.model), network, "--dtype", dtype]
        command += ["--threads", str(args.threads), "--width", str(args.width), "--height", str(args.height)]
        command += ["--frames", str(args.frames)]
        environment = dict(os.environ)
        if without_amx:
            environment["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )

    def ask(self, what: str) -> float:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the peer ended: run benches/video_peer.py by hand to see why")
        return float(line)


def wushi(args: argparse.Namespace, settings: List[str]) -> Dict[str, float]:
    """Seconds of a forward of the denoiser, and of decoding all latent frames; bytes of the most memory planned."""
    command = [str(args.wushi), "bench", str(args.model), "--size", f"{args.width}x{args.height}"]
    command += ["--frames", str(args.frames), "-r", "1", "--threads", str(args.threads), "--json", *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"this failed: {' '.join(command)}\n{done.stderr}")
    rows = {row["kind"]: row for row in json.loads(done.stdout)["results"]}
    decode = sum(row["seconds"] * row["runs_of_a_video"] for kind, row in rows.items() if kind != "denoise")
    return {"denoise": rows["denoise"]["seconds"], "decode": decode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--python", default=sys.executable, help="with torch and diffusers")
    parser.add_argument("--wushi", type=Path, default=ROOT / "target/release/wushi")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--frames", type=int, default=17)
    args = parser.parse_args()
    torch = {
        "denoiser BF16": Peer(args, "denoiser", "bfloat16"),
        "denoiser BF16 without AMX": Peer(args, "denoiser", "bfloat16", without_amx=True),
        "decoder F32": Peer(args, "decoder", "float32"),
    }
    ours = {"BF16, decoder F32": [], "Q8_0, decoder BF16": ["--quant", "q8_0", "--vae-dtype", "bf16"]}
    for peer in torch.values():
        peer.ask("warm up")
    pairs: List[Dict[str, float]] = []
    for turn in range(args.pairs):
        found: Dict[str, float] = {}
        jobs = [(name, lambda peer=peer: peer.ask("run")) for name, peer in torch.items()]
        jobs += [(name, lambda settings=settings: wushi(args, settings)) for name, settings in ours.items()]
        for name, job in jobs if turn % 2 == 0 else reversed(jobs):
            print(f"pair {turn + 1}: {name}", file=sys.stderr, flush=True)
            result = job()
            if isinstance(result, dict):
                found[f"denoiser {name.split(',')[0]}"] = result["denoise"]
                found[f"decoder {name.split()[-1]}"] = result["decode"]
            else:
                found[f"torch {name}"] = result
        pairs.append(found)
    print("| Wushi | torch | Wushi, s | torch, s | times as fast, median | least to greatest |")
    print("|---|---|---:|---:|---:|---:|")
    for mine, theirs in [
        ("denoiser BF16", "torch denoiser BF16 without AMX"), ("denoiser BF16", "torch denoiser BF16"),
        ("denoiser Q8_0", "torch denoiser BF16 without AMX"), ("denoiser Q8_0", "torch denoiser BF16"),
        ("decoder F32", "torch decoder F32"), ("decoder BF16", "torch decoder F32"),
    ]:
        ratios = sorted(pair[theirs] / pair[mine] for pair in pairs)
        seconds = [statistics.median(pair[name] for pair in pairs) for name in (mine, theirs)]
        print(
            f"| {mine} | {theirs.removeprefix('torch ')} | {seconds[0]:.2f} | {seconds[1]:.2f} "
            f"| **{statistics.median(ratios):.2f}** | {ratios[0]:.2f} to {ratios[-1]:.2f} |"
        )
    print(f"\ntorch's decoder had at most {torch['decoder F32'].ask('memory') / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()
