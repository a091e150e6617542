#!/usr/bin/env python3
"""Asks llama.cpp what it makes of a real model, and writes it to tests/fixtures/smollm2.json for the tests to compare.

    tools/peer_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf --peer "$(benches/peer.sh)"

It records token ids of strings that tokenizers disagree on, and the perplexities of tests/fixtures/text/*.txt in
windows of 512 tokens: with llama.cpp's defaults (keys and values in F16, fused attention), and with F32 keys and values
and attention in its plain steps. How far those two lie apart is llama.cpp's own uncertainty. About 3 minutes on 2
cores. Needs nothing besides Python; never run by the tests.
"""

import argparse
import ast
import hashlib
import json
import re
import subprocess
import tempfile
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"

STRINGS = [
    "Why is the sky blue?",
    " leading and trailing ",
    "a  b   c    d",
    "tab\tand\r\nlines\n\n\n  x",
    "1234567890 3.14159 1,000,000 ½ ٣٤٥ 二〇二六",
    "I'm you're he'LL DON'T",
    "你好，世界！今天天气怎么样？",
    "مرحبا بالعالم، كيف حالك؟",
    "🙂👍🏽👨‍👩‍👧‍👦🇨🇳",
    "e\u0301 é ﬁ ﷺ \u200b\u00a0|",
    "fn main() {\n    println!(\"{}\", x << 2);\n}\n",
    "for i in range(10):\n\tprint(i)  # ok",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start",
    "x<|endoftext|>y <repo_name>z",
    " " * 40 + "end",
]


def run(command: list) -> str:
    """Standard output and error of a command that must succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True)
    text = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{text[-2000:]}")
    return text


def token_ids(args: argparse.Namespace, text: str) -> list:
    """The ids of a text whose special tokens are taken as such."""
    with tempfile.NamedTemporaryFile("wb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        output = run([args.peer / "llama-tokenize", "-m", args.model, "-f", file.name, "--ids"])
    return ast.literal_eval(re.search(r"^\[[\d, ]*\]$", output, re.MULTILINE).group())


def perplexity(args: argparse.Namespace, path: Path, extra: list) -> dict:
    """Perplexity of a text file in windows of 512 tokens, and its standard error."""
    command = [args.peer / "llama-perplexity", "-m", args.model, "-f", path, "-c", 512, "-t", args.threads, *extra]
    match = re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", run(command))
    return {"perplexity": float(match.group(1)), "standard_error": float(match.group(2))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the GGUF file")
    parser.add_argument("--peer", type=Path, required=True, help="directory of llama.cpp's programs")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    texts = {}
    for path in sorted((FIXTURES / "text").glob("*.txt")):
        ids = token_ids(args, path.read_text(encoding="utf-8"))
        texts[path.name] = {
            "tokens": len(ids),
            "windows": len(ids) // 512,
            "default": perplexity(args, path, []),
            "f32": perplexity(args, path, ["-ctk", "f32", "-ctv", "f32", "-fa", "off"]),
        }
        print(path.name, texts[path.name])
    result = {
        "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
        "perplexity_ctx": 512,
        "perplexity": texts,
        "tokens": [{"text": s, "ids": token_ids(args, s)} for s in STRINGS],
    }
    lines = [f'  "{k}": {json.dumps(v, ensure_ascii=False)}' for k, v in result.items() if k != "tokens"]
    tokens = ",\n".join("    " + json.dumps(case, ensure_ascii=False) for case in result["tokens"])
    lines.append(f'  "tokens": [\n{tokens}\n  ]')
    (FIXTURES / "smollm2.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
