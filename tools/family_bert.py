"""The tiny BERT that family_fixtures.py makes: an encoder of sentences, as sentence-transformers publishes it."""

import hashlib
import json
import shutil
import string
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from family_tools import convert, doubled
from make_fixtures import relative_error, write_json

NAME = "bert-tiny"

WORDS = (
    "the of and to in is that it was for on with he be by at you are this have not from "
    "un able do world hello rain"
).split()
ENDINGS = ["ing", "ed", "s", "er", "ly", "able", "tion"]

# Case and accents that the normaliser removes, punctuation split off, an ideograph, and words of no known piece.
TEXTS = [
    "",
    "Hello, world!",
    "The rain is unavoidable; it rained on the doers.",
    "Crème brûlée costs 1234.50",
    "你好 hello",
    "smile 🙂 there",
    "  tabs\tand\nlines  ",
    "it's [MASK] able",
]
PAIR = ("hello world", "the rain is not for you")
LONG = "The rain in the world was not for you, and it is able to be this by that: he is in it; are you? I have to do it."


def vocabulary() -> list[str]:
    letters = string.ascii_lowercase + string.digits
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = specials + list(string.punctuation) + list(letters) + [f"##{c}" for c in letters]
    tokens += WORDS + [f"##{e}" for e in ENDINGS if f"##{e}" not in tokens]
    assert len(set(tokens)) == len(tokens)
    return [*tokens, "你"]


def configuration() -> transformers.BertConfig:
    return transformers.BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=72,
        max_position_embeddings=64,
        type_vocab_size=2,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        pad_token_id=0,
    )


def state(config: transformers.BertConfig) -> dict[str, torch.Tensor]:
    """F32 weights, no norm or bias near its neutral value, so that leaving any out changes the result."""
    rng = np.random.default_rng(81)
    values = {}
    shapes = {n: tuple(p.shape) for n, p in transformers.BertModel(config).named_parameters()}
    for name, shape in sorted(shapes.items()):
        if name.endswith("LayerNorm.weight"):
            value = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(".bias"):
            value = rng.normal(0.0, 0.3, shape)
        elif "_embeddings." in name:
            value = rng.normal(0.0, 0.5, shape)
        else:
            # The feed-forward network speaks louder than what goes round it, so that which GELU it has shows.
            scale = 2.0 if ".output.dense" in name and "attention" not in name else 1.0
            value = rng.normal(0.0, scale / np.sqrt(shape[1]), shape)
        values[name] = torch.from_numpy(value.astype(np.float32))
    return values


def save(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    config = configuration()
    model = transformers.BertModel(config)
    model.load_state_dict(state(config), strict=False)
    model.save_pretrained(directory)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vocab.txt"
        path.write_text("".join(f"{t}\n" for t in vocabulary()), encoding="utf-8")
        tokenizer = transformers.BertTokenizerFast(
            str(path), do_lower_case=True, model_max_length=config.max_position_embeddings
        )
        tokenizer.save_pretrained(directory)
    # What sentence-transformers adds: which layers follow the encoder, and how the second pools.
    layers = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(layers)
    ]
    pooling = {
        "word_embedding_dimension": config.hidden_size,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    (directory / "1_Pooling").mkdir()
    for name, value in [
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": config.max_position_embeddings, "do_lower_case": True}),
    ]:
        (directory / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def load(directory: Path, activation: str) -> transformers.BertModel:
    config = transformers.AutoConfig.from_pretrained(directory)
    config.hidden_act = activation
    model, info = transformers.BertModel.from_pretrained(
        directory, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def hidden_states(model: transformers.BertModel, ids: list[int], types: list[int]) -> np.ndarray:
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor([ids]), "token_type_ids": torch.tensor([types])}
        return model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).last_hidden_state[0].numpy()


def make_bert(models: Path, llama_cpp: Path) -> None:
    directory, path = models / NAME, models / f"{NAME}.gguf"
    save(directory)
    convert(llama_cpp, directory, "bert-bge", "F32", path)
    print(f"{NAME}: {sum(f.stat().st_size for f in directory.rglob('*.*')):,} bytes, GGUF {path.stat().st_size:,}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    plain, tanh = load(directory, "gelu"), load(directory, "gelu_new")
    with doubled():
        exact = transformers.BertModel(plain.config).eval()
        exact.load_state_dict({n: v.double() for n, v in plain.state_dict().items()}, strict=False)
    cases, arrays, offset, shown = [], [], 0, [0.0, 0.0]
    for name, text in [("short", TEXTS[1]), ("long", LONG), ("pair", PAIR)]:
        encoded = tokenizer(*(text if isinstance(text, tuple) else (text,)))
        ids, types = encoded.input_ids, encoded.token_type_ids
        states = hidden_states(plain, ids, types)
        with doubled():
            error = relative_error(states, hidden_states(exact, ids, types))
        cls, mean = states[0], states.mean(axis=0)
        case = {"name": name, "text": text, "ids": ids, "types": types, "rows": list(range(len(ids)))}
        for key, value in [("", states), ("cls_", cls), ("mean_", mean), ("embedding_", cls / np.linalg.norm(cls))]:
            case[f"{key}offset"] = offset
            arrays.append(value.ravel())
            offset += value.size
        case |= {"std": round(float(states.std()), 3), "f64_error": error}
        if isinstance(text, tuple):
            # llama.cpp takes every token for one of the first text.
            case["only"] = "directory"
        cases.append(case)
        others = [(tanh, types), (plain, [1 - t for t in types])]
        moved = [relative_error(hidden_states(model, ids, kinds), states) for model, kinds in others]
        print("  ", {k: v for k, v in case.items() if k not in ("ids", "types", "rows")})
        print(f"   with GELU's tanh form: {moved[0]}, with other token types: {moved[1]}")
        shown = [max(pair) for pair in zip(shown, moved)]
    if shown[0] < 2e-4 or shown[1] < 0.01:
        raise SystemExit(f"{NAME} does not show its activation or its token types: choose other weights")
    np.concatenate(arrays).astype("<f4").tofile(models / f"{NAME}.f32")
    config = plain.config
    write_json(models / f"{NAME}.json", {
        "family": "bert",
        "directory": NAME,
        "gguf": path.name,
        "gguf_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "states": f"{NAME}.f32",
        "matrices": "F32",
        "embedding": "F32",
        "config": {
            "vocab": config.vocab_size,
            "width": config.hidden_size,
            "hidden": config.intermediate_size,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_attention_heads,
            "head_dim": config.hidden_size // config.num_attention_heads,
            "context": config.max_position_embeddings,
            "types": config.type_vocab_size,
        },
        "pooling": "cls",
        "normalize": True,
        "cases": cases,
        "texts": [{"text": t, "ids": tokenizer(t).input_ids} for t in TEXTS],
    })
