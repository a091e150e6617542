#!/usr/bin/env python3
"""Measures Wushi beside llama.cpp: same file, same threads, same minutes. Prints a Markdown table.

    cargo build --release
    benches/side_by_side.py MODEL.gguf --threads 2 --pairs 5

A machine's speed wanders by far more than the two engines differ (other tenants, clocks, memory), so single runs mean
nothing. Each pair runs both engines one right after the other, every other pair in the reverse order, and what counts
is the median of the pairs' ratios. Compared are, with 1, 4, 16, ... sequences at once, prefill of a prompt of `-p`
tokens each and then decoding of `-n` tokens each; keys and values in F16 on both sides.

benches/peer.sh builds llama.cpp where none is given with --peer. To be run by hand, on a machine that does nothing
else; neither tests nor CI use it. Needs Python 3.9 and nothing besides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

ROOT = Path(__file__).resolve().parent.parent

Measure = Tuple[str, int]
"""What was measured: `prefill` or `decode`, and by how many sequences at once."""
Speeds = Dict[Measure, float]
"""Tokens per second, of all sequences together."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def output_of(command: List[str]) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"this failed with code {done.returncode}:\n  {' '.join(command)}\n{tail}")
    return done.stdout


def wushi(args: argparse.Namespace) -> Speeds:
    """One run of `wushi bench`."""
    sequences = ",".join(map(str, args.sequences))
    command = [str(args.wushi), "bench", str(args.model), "-p", str(args.prompt), "-n", str(args.tokens)]
    command += ["-b", sequences, "-r", "1", "--threads", str(args.threads), "--json"]
    results = json.loads(output_of(command))["results"]
    return {(r["kind"], r["sequences"]): r["tokens_per_s"] for r in results}


def llama_cpp(args: argparse.Namespace) -> Speeds:
    """One run of llama-batched-bench: for each number of sequences, first all prompts, then decoding after them."""
    # Context for the most sequences at once, each a multiple of 256 tokens as llama.cpp wants it.
    each = -(-(args.prompt + args.tokens) // 256) * 256
    command = [str(args.peer / "llama-batched-bench"), "-m", str(args.model), "-t", str(args.threads)]
    command += ["-c", str(each * max(args.sequences)), "-npp", str(args.prompt), "-ntg", str(args.tokens)]
    command += ["-npl", ",".join(map(str, args.sequences)), "--output-format", "jsonl"]
    speeds: Speeds = {}
    for line in output_of(command).splitlines():
        if line.startswith("{"):
            result = json.loads(line)
            speeds["prefill", result["pl"]] = result["speed_pp"]
            speeds["decode", result["pl"]] = result["speed_tg"]
    return speeds


def run_pairs(args: argparse.Namespace) -> List[Tuple[Speeds, Speeds]]:
    """All pairs of (Wushi, llama.cpp), after one of each that does not count."""
    say("warming up")
    wushi(args)
    llama_cpp(args)
    pairs = []
    for i in range(args.pairs):
        say(f"pair {i + 1} of {args.pairs}")
        if i % 2 == 0:
            ours = wushi(args)
            theirs = llama_cpp(args)
        else:
            theirs = llama_cpp(args)
            ours = wushi(args)
        pairs.append((ours, theirs))
    return pairs


def table(pairs: List[Tuple[Speeds, Speeds]]) -> Iterable[str]:
    """The Markdown table: medians of both speeds, and the pairs' ratios."""
    measures = sorted(pairs[0][0], key=lambda m: (m[0] != "prefill", m[1]))
    yield "| | sequences | Wushi, tokens/s | llama.cpp, tokens/s | ratio, median | least to greatest |"
    yield "|---|---:|---:|---:|---:|---:|"
    for measure in measures:
        ours = [a[measure] for a, _ in pairs]
        theirs = [b[measure] for _, b in pairs]
        ratios = [a / b for a, b in zip(ours, theirs)]
        speeds = f"{statistics.median(ours):.0f} | {statistics.median(theirs):.0f}"
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        yield f"| {measure[0]} | {measure[1]} | {speeds} | **{statistics.median(ratios):.2f}** | {spread} |"


def machine() -> str:
    """The processor's name and its cores."""
    name = "processor unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pairs", type=int, default=5, help="how many pairs to run (default: 5)")
    parser.add_argument("-p", "--prompt", type=int, default=256, help="tokens to prefill (default: 256)")
    parser.add_argument("-n", "--tokens", type=int, default=64, help="tokens each sequence decodes (default: 64)")
    parser.add_argument("-b", "--sequences", default="1,4,16,32", help="sequences at once (default: 1,4,16,32)")
    parser.add_argument("--wushi", type=Path, default=ROOT / "target" / "release" / "wushi", help="the binary")
    parser.add_argument("--peer", type=Path, help="directory of llama.cpp's programs (default: benches/peer.sh builds them)")
    parser.add_argument("--samples", type=Path, help="write every single speed to this file, as JSON")
    args = parser.parse_args()
    args.sequences = [int(n) for n in args.sequences.split(",")]
    if args.pairs < 1:
        parser.error("--pairs must be at least 1")
    if not args.model.is_file():
        parser.error(f"{args.model} is no file")
    if not args.wushi.is_file():
        parser.error(f"{args.wushi} is missing: run `cargo build --release` first, or name it with --wushi")
    if args.peer is None:
        say("preparing llama.cpp")
        script = subprocess.run([str(ROOT / "benches" / "peer.sh")], stdout=subprocess.PIPE, text=True)
        if script.returncode != 0:
            raise SystemExit("benches/peer.sh failed")
        args.peer = Path(script.stdout.splitlines()[-1])
    return args


def main() -> None:
    args = arguments()
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"warning: the machine is busy (load {load:.1f}); the numbers will be noise")
    pairs = run_pairs(args)
    if args.samples:
        named = [[{f"{k} {n}": v for (k, n), v in speeds.items()} for speeds in pair] for pair in pairs]
        args.samples.write_text(json.dumps({"pairs_wushi_llama_cpp": named}, indent=1) + "\n")
    print(f"{args.model.name}, {args.threads} threads, {machine()}; prefill of {args.prompt}, decoding of {args.tokens} "
          f"tokens a sequence; {args.pairs} pairs.\n")
    print("\n".join(table(pairs)))


if __name__ == "__main__":
    main()
