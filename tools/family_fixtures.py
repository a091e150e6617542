#!/usr/bin/env python3
"""Makes the tiny checkpoints of every model family under tests/fixtures/models that the tests compare Wushi with.

    python3 -m venv target/families-venv
    target/families-venv/bin/pip install -r tools/requirements-families.txt
    target/families-venv/bin/python tools/family_fixtures.py LLAMA_CPP

LLAMA_CPP is llama.cpp's source, of which convert_hf_to_gguf.py is run; NAME after it makes only that checkpoint. What it
writes (tests/fixtures/README.md describes the formats):

  models/NAME/        a Hugging Face directory as `save_pretrained` writes it
  models/NAME.gguf    the same, converted by llama.cpp's converter
  models/NAME.json    sizes, token ids, and where the expected results of each case lie in NAME.f32
  models/NAME.f32     results by `transformers` in F32 with eager attention, raw little-endian

Everything is drawn from fixed seeds; results may differ in their last bits with the version of torch, which is why they
are committed and the tests never run this.
"""

import argparse
import copy
import hashlib
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from family_bert import NAME as BERT, make_bert
from family_models import DTYPES, SAMPLING, Case, Checkpoint, Greedy, checkpoints, published_tokenizer
from family_tools import convert, doubled
from gguf import GGMLQuantizationType as Type
from make_fixtures import FIXTURES, SPECIAL, TEXTS, relative_error, round_activations, vocabulary, write_json

class Reference:
    """A saved directory in `transformers`: in F32; in F64, to tell how far F32 is from exact; and for BF16 in F64 with
    activations rounded as the engine rounds them."""

    def __init__(self, checkpoint: Checkpoint, directory: Path, changes: dict[str, Any]) -> None:
        self.plain = load(checkpoint, directory, changes)
        state = self.plain.state_dict()
        with doubled():
            self.exact = self.double(checkpoint, state)
            self.rounded = self.double(checkpoint, state) if checkpoint.storage == "BF16" else None
        if self.rounded is not None:
            for module in self.rounded.modules():
                if isinstance(module, torch.nn.Linear):
                    module.register_forward_pre_hook(round_activations(Type.BF16))

    def double(self, checkpoint: Checkpoint, state: dict[str, torch.Tensor]) -> transformers.PreTrainedModel:
        model = checkpoint.model(self.plain.config).eval()
        model.load_state_dict({n: v.double() for n, v in state.items()})
        return model

    def logits(self, ids: list[int]) -> np.ndarray:
        with torch.no_grad():
            return self.plain(torch.tensor([ids]), use_cache=False).logits[0].numpy()

    def exact_logits(self, ids: list[int], rounded: bool = False) -> np.ndarray:
        with torch.no_grad(), doubled():
            return (self.rounded if rounded else self.exact)(torch.tensor([ids]), use_cache=False).logits[0].numpy()

    def case(self, plan: Case, ids: list[int], offset: int) -> tuple[dict, np.ndarray]:
        """A case of the manifest, and its logits followed by those with rounded activations, if any."""
        logits = self.logits(ids)[plan.rows]
        case = {"name": plan.name, "ids": ids, "rows": plan.rows, "offset": offset, **limits(plan)}
        case["std"] = round(float(logits.std()), 3)
        case["f64_error"] = relative_error(logits, self.exact_logits(ids)[plan.rows])
        if self.rounded is None:
            return case, logits
        rounded = self.exact_logits(ids, rounded=True)[plan.rows].astype(np.float32)
        case["rounded_offset"] = offset + logits.size
        case["rounding_error"] = relative_error(rounded, logits)
        return case, np.concatenate([logits, rounded])

    def greedy(self, prompt: list[int], count: int) -> dict | None:
        """The most likely continuation and the least lead of a winner over its runner-up; None where rounding
        (F32's, or that of activations) takes away half of a lead or more."""
        ids, least = list(prompt), float("inf")
        for _ in range(count):
            row = self.logits(ids)[-1]
            second, first = np.argpartition(row, -2)[-2:]
            lead = row[first] - row[second]
            if lead < 0.02:
                return None
            other = self.exact_logits(ids, rounded=self.rounded is not None)[-1]
            if lead - (other[first] - other[second]) > lead / 2 or row.argmax() != other.argmax():
                return None
            least = min(least, float(lead))
            ids.append(int(first))
        return {"prompt": prompt, "ids": ids[len(prompt) :], "least_lead": round(least, 4)}


def load(checkpoint: Checkpoint, directory: Path, changes: dict[str, Any]) -> transformers.PreTrainedModel:
    """The directory's model in F32 with eager attention, its configuration changed."""
    config = transformers.AutoConfig.from_pretrained(directory)
    for key, value in changes.items():
        assert hasattr(config, key), f"{checkpoint.name} has no {key} to change"
        setattr(config, key, copy.deepcopy(value))
    model, info = checkpoint.model.from_pretrained(
        directory, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def limits(plan: Case | Greedy) -> dict[str, Any]:
    return {k: getattr(plan, k) for k in ("only", "context") if getattr(plan, k) is not None}


def random_ids(checkpoint: Checkpoint, plan: Case) -> list[int]:
    """The same for all cases of one length, so that they differ in what else they differ in."""
    rng = np.random.default_rng([checkpoint.seed, 1000, plan.length])
    return rng.integers(0, checkpoint.config.vocab_size, plan.length).tolist()


def greedy_case(checkpoint: Checkpoint, reference: Reference, plan: Greedy) -> dict:
    """A prompt with a clear greedy continuation that is lively and meets no special token."""
    rng = np.random.default_rng([checkpoint.seed, 2000, plan.length])
    count = 16 if reference.rounded is None else 8
    for _ in range(2000):
        prompt = rng.integers(len(SPECIAL), len(vocabulary()), plan.length).tolist()
        case = reference.greedy(prompt, count)
        if case and len(set(case["ids"])) >= 5 and min(case["ids"]) >= len(SPECIAL):
            return {**case, **limits(plan)}
    raise SystemExit(f"no clear greedy continuation of {checkpoint.name} found: choose other weights")


def check_features(checkpoint: Checkpoint, directory: Path, reference: Reference) -> None:
    """Refuses a checkpoint whose logits would not show that a feature is missing."""
    for feature, (name, changes) in checkpoint.off.items():
        plan = next(c for c in checkpoint.cases if c.name == name)
        ids = random_ids(checkpoint, plan)
        with torch.no_grad():
            other = load(checkpoint, directory, changes)(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        moved = relative_error(other[plan.rows], reference.logits(ids)[plan.rows])
        print(f"   without {feature}: {moved}")
        if moved < checkpoint.least_off:
            raise SystemExit(f"{checkpoint.name} does not show its {feature}: choose other weights")


def check_experts(checkpoint: Checkpoint, reference: Reference, sequences: list[list[int]]) -> dict:
    """That every expert of every layer is used by the first sequence, and that none is chosen by a hair."""
    chosen, least = {}, float("inf")
    used = checkpoint.config.num_experts_per_tok

    def hook(name: str):
        def record(_module: torch.nn.Module, _inputs: Any, scores: torch.Tensor) -> None:
            nonlocal least
            best = scores.sort(dim=-1, descending=True)
            least = min(least, float((best.values[:, used - 1] - best.values[:, used]).min()))
            chosen.setdefault(name, set()).update(best.indices[:, :used].flatten().tolist())

        return record

    hooks = [m.register_forward_hook(hook(n)) for n, m in reference.plain.named_modules() if n.endswith("mlp.gate")]
    reference.logits(sequences[0])
    everyone = set(range(checkpoint.config.num_experts))
    if len(chosen) != checkpoint.config.num_hidden_layers or any(c != everyone for c in chosen.values()):
        raise SystemExit(f"{checkpoint.name} leaves experts unused: choose other weights ({chosen})")
    for ids in sequences[1:]:
        reference.logits(ids)
    for handle in hooks:
        handle.remove()
    if least < 1e-4:
        raise SystemExit(f"{checkpoint.name} chooses an expert by {least}: choose other weights")
    return {"count": len(everyone), "used": used, "all_hit_by": checkpoint.cases[0].name, "least_lead": round(least, 5)}


def perplexity_case(checkpoint: Checkpoint, tokenizer: Any, reference: Reference) -> dict:
    """Perplexity of text/english.txt by llama-perplexity's protocol: windows that do not overlap, the first token of
    each replaced by BOS if the tokenizer adds one, the second half scored. At most 60 windows."""
    path, window = FIXTURES / "text" / "english.txt", checkpoint.perplexity_ctx
    bos = [checkpoint.bos] if checkpoint.add_bos else []
    ids = tokenizer.backend_tokenizer.encode(path.read_text(encoding="utf-8")).ids
    assert ids[: len(bos)] == bos
    half, losses, starts = window // 2, [], list(range(0, len(ids) - window + 1, window))[:60]
    for start in starts:
        inputs = bos + ids[start + len(bos) : start + window]
        logits = torch.from_numpy(reference.logits(inputs)).double().log_softmax(dim=-1)
        losses += [-float(logits[i, inputs[i + 1]]) for i in range(half, window - 1)]
    value = round(float(np.exp(np.mean(losses))), 4)
    case = {"file": f"text/{path.name}", "ctx": window, "windows": len(starts), "scored": len(losses), "perplexity": value}
    return case | ({"context": window} if any(c.context for c in checkpoint.cases) else {})


def chat_case(tokenizer: Any) -> dict:
    messages = [{"role": "user", "content": "hello there"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return {"messages": messages, "rendered": text, "ids": ids}


def save(checkpoint: Checkpoint, directory: Path) -> None:
    """The checkpoint as a directory of files, as published."""
    shutil.rmtree(directory, ignore_errors=True)
    config = copy.deepcopy(checkpoint.config)
    model = checkpoint.model(config)
    missing, unexpected = model.load_state_dict(checkpoint.state(), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    model.to(DTYPES[checkpoint.storage])
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=checkpoint.bos, eos_token_id=list(checkpoint.eos), pad_token_id=0, **SAMPLING
    )
    model.save_pretrained(directory, max_shard_size=checkpoint.shard)
    published_tokenizer(checkpoint).save_pretrained(directory, save_jinja_files=checkpoint.template_file)


def head_dim(config: transformers.PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def make_model(checkpoint: Checkpoint, models: Path, llama_cpp: Path) -> None:
    directory, path = models / checkpoint.name, models / f"{checkpoint.name}.gguf"
    save(checkpoint, directory)
    if checkpoint.gguf:
        convert(llama_cpp, directory, checkpoint.pre, checkpoint.storage, path)
    print(f"{checkpoint.name}: {sum(f.stat().st_size for f in directory.iterdir()):,} bytes"
          + (f", GGUF {path.stat().st_size:,}" if checkpoint.gguf else ""), flush=True)
    references = {}

    def reference(changes: dict[str, Any]) -> Reference:
        key = repr(sorted(changes.items()))
        if key not in references:
            references[key] = Reference(checkpoint, directory, changes)
        return references[key]

    cases, rows, offset = [], [], 0
    for plan in checkpoint.cases:
        case, logits = reference(plan.changes).case(plan, random_ids(checkpoint, plan), offset)
        if not 0.8 < case["std"] < 3.5:
            raise SystemExit(f"{checkpoint.name}: logits of deviation {case['std']}")
        print("  ", {k: v for k, v in case.items() if k not in ("ids", "rows")})
        cases.append(case)
        rows.append(logits)
        offset += logits.size
    np.concatenate([r.ravel() for r in rows]).astype("<f4").tofile(models / f"{checkpoint.name}.f32")
    base = reference({})
    check_features(checkpoint, directory, base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    config = checkpoint.config
    greedy = greedy_case(checkpoint, reference(checkpoint.greedy.changes), checkpoint.greedy)
    more = [greedy_case(checkpoint, reference(g.changes), g) for g in checkpoint.more_greedy]
    manifest = {"family": checkpoint.family, "directory": directory.name}
    if checkpoint.gguf:
        manifest |= {"gguf": path.name, "gguf_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest |= {
        "logits": f"{checkpoint.name}.f32",
        "matrices": checkpoint.storage,
        "embedding": checkpoint.storage,
        "config": {
            "vocab": config.vocab_size,
            "width": config.hidden_size,
            "hidden": config.intermediate_size,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": head_dim(config),
            "context": config.max_position_embeddings,
            "tied": config.tie_word_embeddings,
        },
        "cases": cases,
        "greedy": greedy,
    }
    if more:
        manifest["more_greedy"] = more
    if checkpoint.family == "qwen3moe":
        sequences = [c["ids"] for c in cases] + [g["prompt"] + g["ids"] for g in (greedy, *more)]
        manifest["experts"] = check_experts(checkpoint, base, sequences)
        print("  ", manifest["experts"])
    manifest |= {
        "generation": {"eos": list(checkpoint.eos), **{k: v for k, v in SAMPLING.items() if k != "do_sample"}},
        "texts": [{"text": t, "ids": tokenizer(t).input_ids} for t in TEXTS],
        "chat": chat_case(tokenizer),
        "perplexity": perplexity_case(checkpoint, tokenizer, base),
    }
    write_json(models / f"{checkpoint.name}.json", manifest)
    for case in (greedy, *more):
        print("  ", {k: v for k, v in case.items() if k != "prompt"})
    print("  ", manifest["perplexity"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("llama_cpp", type=Path, help="llama.cpp's source directory")
    parser.add_argument("names", nargs="*", help="only these checkpoints")
    parser.add_argument("-o", "--output", type=Path, default=FIXTURES, help="where to write (default: tests/fixtures)")
    args = parser.parse_args()
    if not (args.llama_cpp / "convert_hf_to_gguf.py").is_file():
        raise SystemExit(f"{args.llama_cpp} has no convert_hf_to_gguf.py: give llama.cpp's source directory")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"numpy {np.__version__}, tokenizers {tokenizers.__version__}")
    models = args.output / "models"
    models.mkdir(parents=True, exist_ok=True)
    for checkpoint in checkpoints():
        if not args.names or checkpoint.name in args.names:
            make_model(checkpoint, models, args.llama_cpp)
    if not args.names or BERT in args.names:
        make_bert(models, args.llama_cpp)


if __name__ == "__main__":
    main()
