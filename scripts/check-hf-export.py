"""Opens an exported checkpoint with Hugging Face transformers and says whether it is what it claims to be.

    python scripts/check-hf-export.py DIRECTORY [--vectors FILE] [--save DIRECTORY]

Needs torch, transformers and tokenizers; nothing is downloaded. Checks that every tensor is used and none is missing,
that the tokenizer loads with its chat template, and that the model generates. With --vectors it writes the
log-probabilities in fp32 that test/interop compares with this project's kernels; with --save it writes the model
back the way transformers does.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import transformers  # noqa: E402

TEXTS = [
    "First Citizen:\nBefore we proceed any further, hear me speak.",
    "To be, or not to be: 12 + 30 = 42.",
    "a",
]
CHAT = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
]
TOP = 8


def describe(model, ids):
    """Per position: log-probability of the next id, entropy in nats, and the most probable ids."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    log_probs = torch.log_softmax(logits.double(), dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    top = log_probs.topk(TOP, dim=-1)
    following = [log_probs[i, ids[i + 1]].item() for i in range(len(ids) - 1)]
    return {
        "ids": ids,
        "nextLogProbs": following,
        "entropy": entropy.tolist(),
        "topTokens": top.indices.tolist(),
        "topLogProbs": top.values.tolist(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--vectors", type=Path, help="write log-probabilities to this JSON file")
    parser.add_argument("--save", type=Path, help="save the model with transformers into this directory")
    options = parser.parse_args()

    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        options.directory, output_loading_info=True, attn_implementation="eager"
    )
    problems = {k: v for k, v in info.items() if v}
    if problems:
        raise SystemExit(f"Weights do not fit: {problems}")
    stored = model.dtype
    model = model.float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.directory)
    if len(tokenizer) != model.config.vocab_size:
        raise SystemExit(f"{len(tokenizer)} tokens, but the model has {model.config.vocab_size}")

    cases = [describe(model, tokenizer(text)["input_ids"]) for text in TEXTS]
    chat_ids = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    cases.append(describe(model, chat_ids))
    prompt = torch.tensor([cases[0]["ids"]])
    generated = model.generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :].tolist()

    parameters = sum(p.numel() for p in model.parameters())
    print(f"{options.directory}: {type(model).__name__}, {parameters} parameters, {stored}")
    print(f"  eos {model.generation_config.eos_token_id}, greedy continuation {generated}")
    if options.vectors:
        weights = b"".join(p.read_bytes() for p in sorted(options.directory.glob("*.safetensors")))
        vectors = {
            "magic": "covenant.vectors.checkpoint",
            "version": 1,
            "madeWith": {"torch": torch.__version__, "transformers": transformers.__version__},
            "weightsSha256": hashlib.sha256(weights).hexdigest(),
            "greedy": generated,
            "cases": cases,
        }
        options.vectors.write_text(json.dumps(vectors) + "\n", encoding="utf-8")
    if options.save:
        model.save_pretrained(options.save)


if __name__ == "__main__":
    main()
