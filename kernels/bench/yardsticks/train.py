"""PyTorch's side of C4: the training step of train_bench.cc with bf16 autocast, eager, on two threads.

A plain LLaMA with the fused pieces PyTorch has on a CPU (scaled_dot_product_attention, rms_norm, fused AdamW), which is
faster than transformers' LlamaForCausalLM on the same shapes.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

SEQUENCES, LENGTH = 8, 256
# vocabulary, hidden, intermediate, layers, heads, key-value heads
CASES = {"6M": (4096, 256, 704, 7, 4, 2), "30M": (8192, 512, 1408, 9, 8, 4)}


def rotate(x, cosine, sine):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1)


class Block(nn.Module):
    def __init__(self, d, f, heads, kv):
        super().__init__()
        self.heads, self.kv, self.dim = heads, kv, d // heads
        self.qkv = nn.Linear(d, (heads + 2 * kv) * self.dim, bias=False)
        self.o = nn.Linear(d, d, bias=False)
        self.gate_up = nn.Linear(d, 2 * f, bias=False)
        self.down = nn.Linear(f, d, bias=False)
        self.norm1 = nn.Parameter(torch.ones(d))
        self.norm2 = nn.Parameter(torch.ones(d))

    def forward(self, x, cosine, sine):
        n, t, d = x.shape
        h = F.rms_norm(x, (d,), self.norm1, 1e-5)
        h = self.qkv(h).view(n, t, self.heads + 2 * self.kv, self.dim).transpose(1, 2)
        q, k, v = h.split((self.heads, self.kv, self.kv), dim=1)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        group = self.heads // self.kv
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        a = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(n, t, d))
        gate, up = self.gate_up(F.rms_norm(x, (d,), self.norm2, 1e-5)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, vocabulary, d, f, layers, heads, kv):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d)
        self.blocks = nn.ModuleList(Block(d, f, heads, kv) for _ in range(layers))
        self.norm = nn.Parameter(torch.ones(d))
        half = d // heads // 2
        angles = torch.outer(torch.arange(LENGTH), 10000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        x = F.rms_norm(x, (x.shape[-1],), self.norm, 1e-5)
        return F.cross_entropy(F.linear(x, self.embedding.weight).flatten(0, 1), targets.flatten())


def measure(name, quick):
    torch.manual_seed(1)
    model = Llama(*CASES[name])
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, (0.9, 0.95), 1e-8, 0.1, fused=True)
    tokens = torch.arange(SEQUENCES * LENGTH) * 7919 % CASES[name][0]
    tokens = tokens.view(SEQUENCES, LENGTH)
    targets = (tokens + 7919) % CASES[name][0]

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    step()
    best = float("inf")
    for _ in range(2 if quick else 7):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return SEQUENCES * LENGTH / best


def main():
    torch.set_num_threads(2)
    for name in CASES:
        print(
            json.dumps(
                {
                    "id": f"C4.{name}",
                    "yardstick": f"PyTorch {torch.__version__} bf16 autocast",
                    "yardstickValue": measure(name, "--quick" in sys.argv),
                }
            )
        )


if __name__ == "__main__":
    main()
