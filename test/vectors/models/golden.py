"""What the scripts beside this one share: the models, their tasks, and the files they are written to."""

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
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {  # targets: bits of cov_lora_target, in the order of PROJECTIONS
    "adapters-qvd": dict(model="gqa-untied", rank=3, alpha=6.0, targets=1 | 4 | 64),
    "adapters-all": dict(model="mha-tied", rank=5, alpha=2.0, targets=127),
}


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
    """Names and parameters in the order of the flat buffer."""
    names = [n for n in model.state_dict() if not (tied and n == "lm_head.weight")]
    named = dict(model.named_parameters())
    return [(n, named[n]) for n in names]


def adapters_of(s):
    """Per layer and target: layer, name, A (rank, inputs), B (outputs, rank). B is not zero, as it would be at
    first, so that A has a gradient."""
    m = MODELS[s["model"]]
    kv = m["hidden"] // m["heads"] * m["kv"]
    shapes = dict(zip(PROJECTIONS, [
        (m["hidden"], m["hidden"]), (kv, m["hidden"]), (kv, m["hidden"]), (m["hidden"], m["hidden"]),
        (m["inter"], m["hidden"]), (m["inter"], m["hidden"]), (m["hidden"], m["inter"])]))
    torch.manual_seed(100 + m["seed"])
    wanted = [p for bit, p in enumerate(PROJECTIONS) if s["targets"] >> bit & 1]
    return [(layer, p, 0.2 * torch.randn(s["rank"], shapes[p][1]), 0.2 * torch.randn(shapes[p][0], s["rank"]))
            for layer in range(m["layers"]) for p in wanted]


class Task:
    """Tokens, targets of which some are not scored, and coefficients of their log-probabilities."""

    def __init__(self, m, seed=None, shape=(SEQUENCES, LENGTH)):
        rng = np.random.default_rng(m["seed"] if seed is None else seed)
        self.tokens = rng.integers(0, m["vocab"], shape).astype("<i4")
        self.targets = rng.integers(0, m["vocab"], shape).astype("<i4")
        self.targets[0, :4] = -1
        self.targets[-1, 7 % shape[1]] = -1
        self.coefficients = rng.standard_normal(shape).astype("<f4")
        self.t_tokens = torch.tensor(self.tokens.astype(np.int64))
        self.t_targets = torch.tensor(self.targets.astype(np.int64))
        self.mask = self.t_targets >= 0

    def log_probs(self, model, temperature=1.0):
        return torch.log_softmax(model(self.t_tokens).logits / temperature, dim=-1)

    def picked(self, model, temperature=1.0):
        every = self.log_probs(model, temperature)
        return every.gather(-1, self.t_targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)

    def nll(self, model):
        return -self.picked(model)[self.mask].mean()

    def weighted(self, model):
        return (torch.tensor(self.coefficients) * self.picked(model, 0.7) * self.mask).sum()

    def gradients(self, model, params):
        """Sections: of the mean NLL over scored positions, and of sum(c * log p) at temperature 0.7."""
        return [flat(torch.autograd.grad(loss(model), params)).tobytes()
                for loss in (self.nll, self.weighted)]

    def train(self, model, params, decayed):
        """Sections: losses f64 and norms f32 of AdamW steps, parameters f32 after them."""
        o = OPTIMIZER
        groups = [dict(params=[p for p in params if decayed(p)], weight_decay=o["decay"]),
                  dict(params=[p for p in params if not decayed(p)], weight_decay=0.0)]
        adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=o["lr"],
                                  betas=(o["beta1"], o["beta2"]), eps=o["eps"])
        losses, norms = [], []
        for _ in range(STEPS):
            adamw.zero_grad()
            loss = self.nll(model)
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(params, o["clip"])))
            adamw.step()
            losses.append(loss.item())
        print("losses", losses, "norms", norms)
        return [np.array(losses, "<f8").tobytes(), np.array(norms, "<f4").tobytes(),
                flat(params).tobytes()]


def flat(tensors):
    return np.concatenate([t.detach().numpy().astype("<f4").ravel() for t in tensors])


def write(name, header, sections):
    """header, then each section as its u64 byte length and its bytes."""
    path = pathlib.Path(__file__).parent / (name + ".bin")
    path.write_bytes(header + b"".join(struct.pack("<Q", len(s)) + s for s in sections))
    print(path.name, path.stat().st_size, "bytes")
