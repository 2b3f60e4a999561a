"""Golden vectors of the CPU engine, computed by transformers and torch in fp32.

    python3 -m venv venv && venv/bin/pip install torch transformers numpy
    venv/bin/python test/vectors/models/make.py

Writes one file per model beside this script. Layout, little-endian:
    magic "COVGOLD1", u32 version (2)
    i32 x 8: vocab, hidden, intermediate, layers, heads, kv heads, max positions, tied
    f64 x 2: rope theta, rms norm eps;  i32 x 2: sequences, sequence length
    f32 x 6: learning rate, beta1, beta2, epsilon, weight decay, gradient clip
    then sections, each u64 byte length + bytes:
    tensors (text: "name dim0 dim1\n", rank 1 with dim1 = 1), parameters f32, tokens i32, targets i32,
    log_probs f32 (sequences, length, vocab), entropy f32 (sequences, length),
    gradients f32 of the mean NLL over scored positions,
    coefficients f32 (sequences, length), coefficient_gradients f32 of sum(c * log p) at temperature 0.7,
    losses f64 (steps), norms f32 (steps), final f32: parameters after that many AdamW steps.
"""

import pathlib
import struct

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VERSION = 2
STEPS = 3
OPTIMIZER = dict(lr=3e-3, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1, clip=0.5)
MODELS = {
    "gqa-untied": dict(vocab=61, hidden=32, inter=44, layers=2, heads=4, kv=2, positions=64,
                       tied=False, theta=10000.0, eps=1e-5, seed=1),
    "mha-tied": dict(vocab=47, hidden=36, inter=40, layers=3, heads=3, kv=3, positions=32,
                     tied=True, theta=500000.0, eps=1e-6, seed=2),
}
SEQUENCES, LENGTH = 3, 13


def build(m):
    torch.manual_seed(m["seed"])
    config = LlamaConfig(
        vocab_size=m["vocab"], hidden_size=m["hidden"], intermediate_size=m["inter"],
        num_hidden_layers=m["layers"], num_attention_heads=m["heads"], num_key_value_heads=m["kv"],
        max_position_embeddings=m["positions"], rms_norm_eps=m["eps"],
        rope_parameters={"rope_type": "default", "rope_theta": m["theta"]},
        tie_word_embeddings=m["tied"], attention_bias=False, mlp_bias=False,
        attn_implementation="eager")
    model = LlamaForCausalLM(config).to(torch.float32).eval()
    with torch.no_grad():  # larger than the usual initial values: attention far from uniform
        for name, p in model.named_parameters():
            p.copy_(1 + 0.3 * torch.randn_like(p) if p.dim() == 1 else 0.3 * torch.randn_like(p))
    return model


def parameters_of(model, tied):
    names = [n for n in model.state_dict() if not (tied and n == "lm_head.weight")]
    named = dict(model.named_parameters())
    return [(n, named[n]) for n in names]


def flat(tensors):
    return np.concatenate([t.detach().numpy().astype("<f4").ravel() for t in tensors])


def section(data):
    return struct.pack("<Q", len(data)) + data


def make(name, m):
    model = build(m)
    named = parameters_of(model, m["tied"])
    params = [p for _, p in named]
    rng = np.random.default_rng(m["seed"])
    tokens = rng.integers(0, m["vocab"], (SEQUENCES, LENGTH)).astype("<i4")
    targets = rng.integers(0, m["vocab"], (SEQUENCES, LENGTH)).astype("<i4")
    targets[0, :4] = -1
    targets[2, 7] = -1
    t_tokens, t_targets = torch.tensor(tokens.astype(np.int64)), torch.tensor(targets.astype(np.int64))
    mask = t_targets >= 0
    text = "".join("%s %d %d\n" % (n, p.shape[0], p.shape[1] if p.dim() > 1 else 1) for n, p in named)
    sections = [text.encode(), flat(params).tobytes(), tokens.tobytes(), targets.tobytes()]

    def log_probs(temperature=1.0):
        return torch.log_softmax(model(t_tokens).logits / temperature, dim=-1)

    def nll():
        picked = log_probs().gather(-1, t_targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return -picked[mask].mean()

    lp = log_probs()
    sections.append(flat([lp]).tobytes())
    sections.append(flat([-(lp.exp() * lp).sum(-1)]).tobytes())
    sections.append(flat(torch.autograd.grad(nll(), params)).tobytes())
    coefficients = rng.standard_normal((SEQUENCES, LENGTH)).astype("<f4")
    picked = log_probs(0.7).gather(-1, t_targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    total = (torch.tensor(coefficients) * picked * mask).sum()
    sections.append(coefficients.tobytes())
    sections.append(flat(torch.autograd.grad(total, params)).tobytes())

    o = OPTIMIZER
    matrices = [p for p in params if p.dim() > 1]
    vectors = [p for p in params if p.dim() == 1]
    adamw = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=o["decay"]), dict(params=vectors, weight_decay=0.0)],
        lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    losses, norms = [], []
    for _ in range(STEPS):
        adamw.zero_grad()
        loss = nll()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(params, o["clip"])))
        adamw.step()
        losses.append(loss.item())
    sections.append(np.array(losses, "<f8").tobytes())
    sections.append(np.array(norms, "<f4").tobytes())
    sections.append(flat(params).tobytes())

    header = b"COVGOLD1" + struct.pack("<I", VERSION)
    header += struct.pack("<8i", m["vocab"], m["hidden"], m["inter"], m["layers"], m["heads"], m["kv"],
                          m["positions"], int(m["tied"]))
    header += struct.pack("<2d2i", m["theta"], m["eps"], SEQUENCES, LENGTH)
    header += struct.pack("<6f", o["lr"], o["beta1"], o["beta2"], o["eps"], o["decay"], o["clip"])
    path = pathlib.Path(__file__).parent / (name + ".bin")
    path.write_bytes(header + b"".join(section(s) for s in sections))
    print(path.name, path.stat().st_size, "bytes; losses", losses, "norms", norms)


for name, shape in MODELS.items():
    make(name, shape)
