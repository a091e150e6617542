#!/usr/bin/env python3
"""Asks `transformers` for the final states of tiny checkpoints and writes their means and the last of them to
tests/fixtures/pooled.json, for the tests to compare embeddings of text models with.

    tools/pooled_goldens.py

Needs torch and transformers; never run by the tests.
"""

import json
from pathlib import Path

import torch
import transformers

MODELS = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "models"
NAMES = ["llama-tiny-linear", "qwen2-tiny", "qwen3-tiny", "qwen3moe-tiny", "gemma3-tiny", "phi-tiny", "mistral-tiny"]


def pooled(name: str) -> dict:
    cases = json.loads((MODELS / f"{name}.json").read_text())["cases"]
    case = next(case for case in cases if case.get("only") in (None, "directory") and case["name"] != "long")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        MODELS / name, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        states = model.model(torch.tensor([case["ids"]]), use_cache=False).last_hidden_state[0].double()
    rounded = lambda vector: [float(f"{x:.7g}") for x in vector.tolist()]
    return {"ids": case["ids"], "mean": rounded(states.mean(0)), "last": rounded(states[-1])}


def main() -> None:
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__}
    report = {"made_with": made_with, "models": {name: pooled(name) for name in NAMES}}
    (MODELS.parent / "pooled.json").write_text(json.dumps(report, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
