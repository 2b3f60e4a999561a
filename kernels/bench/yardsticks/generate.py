"""Yardstick of C5: transformers' generate on the shapes of generate_bench.cc, random weights, fp32 and bf16, the same
prompts and numbers of tokens. Prints one line of JSON per row. Needs torch and transformers."""

import json
import os
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

PROMPT = 32
SIZES = {"6M": (2048, 256, 704, 6, 8), "30M": (4096, 512, 1408, 8, 8)}
quick = "--quick" in sys.argv
new_tokens = 32 if quick else 128
# One thread and its processor time, as in generate_bench.cc.
one_core = "COVENANT_BENCH_ONE_CORE" in os.environ
now_s = time.process_time if one_core else time.perf_counter
torch.set_num_threads(1 if one_core else len(os.sched_getaffinity(0)))


class Clock(StoppingCriteria):
    """Notes when each token is there."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(now_s())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def rate(model, batch: int) -> float:
    """Tokens per second by the lower decile of the times of single steps, as generate_bench.cc has it."""
    prompts = torch.tensor([[(i * 131 + t * 17 + 3) % 2000 for t in range(PROMPT)] for i in range(batch)])
    steps = []
    begin = time.monotonic()
    while not steps or time.monotonic() - begin < (0.5 if quick else 3):
        clock = Clock()
        with torch.inference_mode():
            out = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        assert out.shape == (batch, PROMPT + new_tokens)
        steps += [b - a for a, b in zip(clock.times, clock.times[1:])]
    steps.sort()
    return batch / steps[len(steps) // 10]


def main() -> None:
    name = f"transformers generate (torch {torch.__version__})"
    for size, (vocab, hidden, ffn, layers, heads) in SIZES.items():
        config = LlamaConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=ffn,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
        rates = {}
        for label, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            torch.manual_seed(1)
            model = LlamaForCausalLM(config).to(dtype).eval()
            rate(model, 1)
            for batch in (1, 16):
                rates[batch, label] = rate(model, batch)
        for batch in (1, 16):
            fastest = max(("f32", "bf16"), key=lambda label: rates[batch, label])
            for suffix, label in ((".f32", "f32"), (".bf16", "bf16"), (".int8", fastest), ("", fastest)):
                row = {
                    "id": f"C5.{size}.b{batch}{suffix}",
                    "yardstick": f"{name}, {label}",
                    "yardstickValue": rates[batch, label],
                    "note": "",
                }
                print(json.dumps(row), flush=True)


main()
