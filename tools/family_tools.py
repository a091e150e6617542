"""What the scripts that make the checkpoints of the model families share."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import torch

# Runs the converter as its own program, the tiny tokenizer taken for the one it stands for: the converter tells
# tokenizers apart by a hash of their whole vocabulary.
CONVERT = """
import sys
source, pre, *arguments = sys.argv[1:]
sys.path.insert(0, source)
sys.argv = ["convert_hf_to_gguf.py", *arguments]
import convert_hf_to_gguf
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
convert_hf_to_gguf.main()
"""


def convert(llama_cpp: Path, directory: Path, pre: str, storage: str, to: Path) -> None:
    command = [sys.executable, "-c", CONVERT, llama_cpp, pre, directory, "--outfile", to, "--outtype", storage.lower()]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the converter failed on {directory.name}:\n{done.stderr}")


@contextlib.contextmanager
def doubled() -> Iterator[None]:
    """F64 wherever `transformers` asks for F32 by name: in norms, softmax and rope tables."""
    kept = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = kept
        torch.set_default_dtype(torch.float32)
