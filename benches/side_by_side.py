#!/usr/bin/env python3
"""Measures Wushi beside llama.cpp: same file, same threads, same minutes. Writes a Markdown table and a plot.

    cargo build --release
    benches/side_by_side.py MODEL.gguf [MODEL.gguf...] --threads 2 --pairs 7 --json raw.json --svg plot.svg
    benches/side_by_side.py MODEL.gguf --types q4_0,q8_0,f16,bf16 --only prefill,decode,load
    benches/side_by_side.py MODEL.gguf --isa avx2                  # beside a llama.cpp built for AVX2 alone
    benches/side_by_side.py --from raw.json other.json --svg plot.svg    # the tables again, nothing is measured

A machine's speed wanders by far more than the two engines differ (other tenants, clocks, memory), so single runs mean
nothing. Each pair runs both engines one right after the other, every other pair in the reverse order, and what counts
is the median of the pairs' ratios. Keys and values are F16 on both sides, everything else is at its default. Measured are

  prefill   a prompt of 256 tokens, and one of 2,048 (`wushi bench`, `llama-bench`)
  decode    1, 4, 16 and 32 sequences together, each of 64 tokens behind its own prompt of 128, prompts aside
            (`wushi bench`, `llama-batched-bench`)
  context   64 tokens behind 4,096 others (`wushi bench`, `llama-bench`)
  load      a process from its start to the first token of a prompt of 32 tokens, its file in the page cache, and the most
            memory it had resident (`wushi run`, `llama-completion` without warm-up)

`wushi bench` probes the memory's bandwidth just before and after each of its own measurements; the tables say what share of
it weights, keys and values took. --types makes the model's file in other types by `wushi convert`, from the file
given; quantising what is quantised already is bad for answers and nothing to speed.

benches/peer.sh builds llama.cpp where none is given with --peer. To be run by hand, on a machine that does nothing
else; neither tests nor CI use it. Needs Python 3.9 on Linux and nothing besides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

import plot

ROOT = Path(__file__).resolve().parent.parent
KINDS = ["prefill", "decode", "context", "load"]
CONTEXT = 4096
# Of 32 tokens with the tokenizers of Qwen2.5 and of SmolLM2.
PROMPT = (
    "The river carried the boats past the old town, where people sat in the sun and talked about the weather, the harvest "
    "and the price of bread and of wine."
)

Found = Dict[str, float]
"""Values by measure. Tokens per second, or what `LESS` names; `MEASURE share` is the share of bandwidth."""
LESS = {"load to first token": "s", "peak memory": "MiB"}
SHARE = " share"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def failed(command: List[str], code: int, output: str) -> SystemExit:
    tail = "\n".join(output.splitlines()[-15:])
    return SystemExit(f"this failed with code {code}:\n  {' '.join(command)}\n{tail}")


def output_of(command: List[str]) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise failed(command, done.returncode, done.stdout + done.stderr)
    return done.stdout


def json_lines(text: str) -> List[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def first_token(command: List[str]) -> Found:
    """Runs a command that prints one token. Its first byte is taken for the token."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    something = process.stdout.read(1)
    seconds = time.perf_counter() - begun
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or not something:
        raise failed(command, process.returncode, "it printed nothing" if not something else "")
    return {"load to first token": seconds, "peak memory": usage.ru_maxrss / 1024}


def together(sequences: int) -> str:
    return f"decode, {sequences} sequence" + ("s" if sequences > 1 else "")


class Wushi:
    """Our side of every kind of measurement."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.compute = ["--threads", str(args.threads)] + (["--isa", args.isa] if args.isa else [])

    def bench(self, model: Path, only: str, prompt: int, sequences: List[int]) -> List[dict]:
        command = [str(self.args.wushi), "bench", str(model), "--only", only, "-p", str(prompt)]
        command += ["-n", str(self.args.tokens), "-b", ",".join(map(str, sequences)), "-r", "1", "--json", *self.compute]
        report = json.loads(output_of(command))
        self.args.machine.append(report["machine"])
        return report["results"]

    def prefill(self, model: Path) -> Found:
        rows = {length: self.bench(model, "prefill", length, [1])[0] for length in self.args.prompts}
        return {f"prefill, {length} tokens": row["tokens_per_s"] for length, row in rows.items()}

    def decode(self, model: Path) -> Found:
        found = {}
        for row in self.bench(model, "decode", self.args.prompt, self.args.sequences):
            found[together(row["sequences"])] = row["tokens_per_s"]
            found[together(row["sequences"]) + SHARE] = row["share_of_bandwidth"]
        return found

    def context(self, model: Path) -> Found:
        row = self.bench(model, "decode", self.args.depth, [1])[0]
        name = f"decode behind {self.args.depth} tokens"
        return {name: row["tokens_per_s"], name + SHARE: row["share_of_bandwidth"]}

    def load(self, model: Path) -> Found:
        command = [str(self.args.wushi), "run", str(model), "--raw", PROMPT, "--max-tokens", "1", "--temperature", "0"]
        return first_token([*command, "--ctx", str(CONTEXT), "--quiet", *self.compute])


class LlamaCpp:
    """Their side."""

    def __init__(self, args: argparse.Namespace):
        self.args = args

    def command(self, program: str, model: Path) -> List[str]:
        path = self.args.peer / program
        if not path.is_file():
            raise SystemExit(f"{path} is missing: let benches/peer.sh build it, or take other measures with --only")
        return [str(path), "-m", str(model), "-t", str(self.args.threads)]

    def prefill(self, model: Path) -> Found:
        lengths = ",".join(map(str, self.args.prompts))
        command = [*self.command("llama-bench", model), "-p", lengths, "-n", "0", "-r", "1", "-o", "jsonl"]
        return {f"prefill, {row['n_prompt']} tokens": row["avg_ts"] for row in json_lines(output_of(command))}

    def decode(self, model: Path) -> Found:
        # Context for the most sequences at once, each a multiple of 256 tokens as llama.cpp wants it.
        each = -(-(self.args.prompt + self.args.tokens) // 256) * 256
        command = [*self.command("llama-batched-bench", model), "-c", str(each * max(self.args.sequences))]
        command += ["-npp", str(self.args.prompt), "-ntg", str(self.args.tokens), "--output-format", "jsonl"]
        command += ["-npl", ",".join(map(str, self.args.sequences))]
        return {together(row["pl"]): row["speed_tg"] for row in json_lines(output_of(command))}

    def context(self, model: Path) -> Found:
        command = [*self.command("llama-bench", model), "-p", "0", "-n", str(self.args.tokens), "-r", "1", "-o", "jsonl"]
        rows = json_lines(output_of([*command, "-d", str(self.args.depth)]))
        return {f"decode behind {row['n_depth']} tokens": row["avg_ts"] for row in rows}

    def load(self, model: Path) -> Found:
        command = [*self.command("llama-completion", model), "-no-cnv", "--no-display-prompt", "--no-warmup"]
        return first_token([*command, "-p", PROMPT, "-n", "1", "--temp", "0", "-c", str(CONTEXT)])


def one_pair(args: argparse.Namespace, model: Path, turn: int) -> Tuple[Found, Found]:
    """Both engines through all kinds of measurement, who is first in turn."""
    engines = [Wushi(args), LlamaCpp(args)]
    found: Tuple[Found, Found] = ({}, {})
    for kind in args.only:
        say(f"{model.stem}: pair {turn + 1} of {args.pairs}, {kind}")
        for engine in (0, 1) if turn % 2 == 0 else (1, 0):
            found[engine].update(getattr(engines[engine], kind)(model))
    return found


def files_of(args: argparse.Namespace, model: Path) -> Iterable[Tuple[str, Path]]:
    """The model's file as it is, or those in the types that are wanted, with names for people."""
    if not args.types:
        yield model.stem, model
    for dtype in args.types:
        made = args.work / f"{model.stem}.as-{dtype}.gguf"
        if not made.is_file():
            say(f"making {made}")
            args.work.mkdir(parents=True, exist_ok=True)
            part = made.with_suffix(".part")
            output_of([str(args.wushi), "convert", str(model), str(part), "--quant", dtype, "--force"])
            part.rename(made)
        yield f"{model.stem} as {dtype.upper()}", made


def measure(args: argparse.Namespace) -> dict:
    """All raw numbers; written to --json after each pair, so that little is lost if one fails."""
    settings = {"threads": args.threads, "isa": args.isa, "tokens": args.tokens, "prompt": args.prompt}
    raw = {"title": args.title, "processor": processor(), **settings, "machine": args.machine, "models": []}
    for model in args.models:
        for name, path in files_of(args, model):
            # What is not in the page cache would count against whoever is first.
            with open(path, "rb") as file:
                while file.read(1 << 24):
                    pass
            entry = {"model": name, "pairs": []}
            raw["models"].append(entry)
            for turn in range(args.pairs):
                entry["pairs"].append(one_pair(args, path, turn))
                if args.json:
                    args.json.write_text(json.dumps(raw, indent=1) + "\n")
    return raw


def names_of(pairs: List[Tuple[Found, Found]]) -> List[str]:
    """What both engines measured in every pair, in the order of measuring."""
    return [name for name in pairs[0][0] if all(name in side for pair in pairs for side in pair)]


def ratios_of(pairs: List[Tuple[Found, Found]], name: str) -> Tuple[float, float, float]:
    """Least, median and greatest."""
    ratios = [ours[name] / theirs[name] for ours, theirs in pairs]
    return min(ratios), statistics.median(ratios), max(ratios)


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(pairs: List[Tuple[Found, Found]]) -> Iterable[str]:
    """One model: medians of both values, and the pairs' ratios."""
    yield "| | Wushi | llama.cpp | ratio, median | least to greatest | of the bandwidth |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name in names_of(pairs):
        least, median, greatest = ratios_of(pairs, name)
        values = [number(statistics.median(pair[side][name] for pair in pairs)) for side in (0, 1)]
        shares = [ours[name + SHARE] for ours, _ in pairs if name + SHARE in ours]
        share = f"{statistics.median(shares) * 100:.0f} %" if shares else ""
        heading = f"{name}, {LESS.get(name, 'tokens/s')}"
        spread = f"{least:.2f} to {greatest:.2f}"
        yield f"| {heading} | {values[0]} | {values[1]} | **{median:.2f}** | {spread} | {share} |"


def overview(models: List[dict]) -> Iterable[str]:
    """Medians of ratios of all models."""
    yield "| ratio | " + " | ".join(entry["model"] for entry in models) + " |"
    yield "|---|" + "---:|" * len(models)
    for name in all_names(models):
        known = [name in names_of(entry["pairs"]) for entry in models]
        cells = [f"{ratios_of(e['pairs'], name)[1]:.2f}" if there else "" for e, there in zip(models, known)]
        yield f"| {name} | " + " | ".join(cells) + " |"


def all_names(models: List[dict]) -> List[str]:
    return list(dict.fromkeys(name for entry in models for name in names_of(entry["pairs"])))


def markdown(raw: dict) -> Iterable[str]:
    models, machine = raw["models"], raw["machine"]
    yield f"## {raw['title']}\n"
    line = f"{raw['processor']}, {raw['threads']} threads"
    if machine:
        over = {name: statistics.median(m[name] for m in machine) for name in machine[0] if name.endswith("_per_s")}
        line += f"; Wushi with {machine[0]['instruction_set']}"
        line += f"; probed in between: {over['bandwidth_gb_per_s']:.1f} GB/s, {over['int8_giga_macs_per_s']:.0f} G multiply-adds of "
        line += f"bytes and {over['f32_giga_macs_per_s']:.0f} of F32 a second"
    yield f"{line}. Pairs: {', '.join(str(n) for n in sorted({len(entry['pairs']) for entry in models}))}.\n"
    if len(models) > 1:
        yield from overview(models)
        yield ""
    for entry in models:
        yield f"### {entry['model']}\n"
        yield from table(entry["pairs"])
        yield ""


def svg(raw: dict) -> str:
    """The ratios; times and memory the other way around, so that more is better everywhere."""
    models = raw["models"]
    rows = []
    for name in all_names(models):
        bars = []
        for index, entry in enumerate(models):
            if name in names_of(entry["pairs"]):
                bar = ratios_of(entry["pairs"], name)
                bars.append((index, tuple(1 / value for value in reversed(bar)) if name in LESS else bar))
        rows.append((name, bars))
    return plot.ratios(raw["title"], [entry["model"] for entry in models], rows)


def processor() -> str:
    """Its name and its cores."""
    name = "processor unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def merged(files: List[Path], title: Optional[str]) -> dict:
    """Raw numbers of several runs as one; pairs of one model come together."""
    raws = [json.loads(file.read_text()) for file in files]
    merged_raw = {**raws[0], "title": title or raws[0]["title"], "machine": [], "models": []}
    models: Dict[str, dict] = {}
    for raw in raws:
        merged_raw["machine"] += raw["machine"]
        for entry in raw["models"]:
            known = models.setdefault(entry["model"], {"model": entry["model"], "pairs": []})
            # Runs of other kinds stand beside those that are there, runs of the same kinds behind them.
            apart = known["pairs"] and not set(known["pairs"][0][0]) & set(entry["pairs"][0][0])
            if apart and len(known["pairs"]) == len(entry["pairs"]):
                known["pairs"] = [[{**a, **b} for a, b in zip(*both)] for both in zip(known["pairs"], entry["pairs"])]
            else:
                known["pairs"] += entry["pairs"]
    return {**merged_raw, "models": list(models.values())}


def integers(text: str) -> List[int]:
    numbers = [int(part) for part in text.split(",")]
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError("numbers must be at least 1")
    return numbers


def kinds(text: str) -> List[str]:
    wanted = text.split(",")
    if set(wanted) - set(KINDS):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(KINDS)}")
    return wanted


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", type=Path, nargs="*", help="GGUF files")
    add("-t", "--threads", type=int, default=os.cpu_count() or 1)
    add("--pairs", type=int, default=7, help="how many pairs to run (default: 7)")
    add("--only", type=kinds, default=KINDS, help=f"what to measure (default: {','.join(KINDS)})")
    add("--types", type=lambda text: text.split(","), default=[], help="measure these instead of the file as it is")
    add("--isa", help="instruction set: avx2 takes a peer built for that alone (default: the best on both sides)")
    add("--prompts", type=integers, default=[256, 2048], help="tokens to prefill (default: 256,2048)")
    add("-b", "--sequences", type=integers, default=[1, 4, 16, 32], help="sequences together (default: 1,4,16,32)")
    add("-p", "--prompt", type=int, default=128, help="tokens of each one's prompt (default: 128)")
    add("-n", "--tokens", type=int, default=64, help="tokens each sequence decodes (default: 64)")
    add("-d", "--depth", type=int, default=4096, help="tokens of context for `context` (default: 4096)")
    add("--title", help="of table and plot")
    add("--json", type=Path, help="write every single number to this file")
    add("--markdown", type=Path, help="write the tables to this file (default: standard output)")
    add("--svg", type=Path, help="write the plot to this file")
    add("--from", dest="given", type=Path, nargs="+", help="files that --json wrote: make tables and plot of them")
    add("--wushi", type=Path, default=ROOT / "target" / "release" / "wushi", help="the binary")
    add("--peer", type=Path, help="directory of llama.cpp's programs (default: benches/peer.sh builds them)")
    add("--work", type=Path, default=ROOT / "target" / "peer" / "models", help="where files of --types are kept")
    args = parser.parse_args()
    args.machine = []
    if args.given:
        return args
    if args.pairs < 1:
        parser.error("--pairs must be at least 1")
    if not args.models:
        parser.error("which model? Name a GGUF file")
    for model in args.models:
        if not model.is_file():
            parser.error(f"{model} is no file")
    if not args.wushi.is_file():
        parser.error(f"{args.wushi} is missing: run `cargo build --release` first, or name it with --wushi")
    args.title = args.title or "Wushi beside llama.cpp" + (f", {args.isa}" if args.isa else "")
    return args


def prepare(args: argparse.Namespace) -> None:
    """The peer, and a look at the machine."""
    if args.peer is None:
        say("preparing llama.cpp")
        command = [str(ROOT / "benches" / "peer.sh")] + (["--avx2"] if args.isa == "avx2" else [])
        script = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if script.returncode != 0:
            raise SystemExit("benches/peer.sh failed")
        args.peer = Path(script.stdout.splitlines()[-1])
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"warning: the machine is busy (load {load:.1f}); the numbers will be noise")


def main() -> None:
    args = arguments()
    if args.given:
        raw = merged(args.given, args.title)
        if args.json:
            args.json.write_text(json.dumps(raw, indent=1) + "\n")
    else:
        prepare(args)
        raw = measure(args)
    text = "\n".join(markdown(raw))
    if args.markdown:
        args.markdown.write_text(text)
    else:
        print(text)
    if args.svg:
        args.svg.write_text(svg(raw))


if __name__ == "__main__":
    main()
