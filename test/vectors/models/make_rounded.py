"""Golden vectors of the formats below fp32, computed by transformers and torch.

    venv/bin/python test/vectors/models/make_rounded.py

The model is that of transformers in fp32 with its linear layers replaced by the definitions in
kernels/include/covenant/model.h, summed in fp64, so that what is left between these numbers and the
engine's is the order of fp32 sums, and what an operand does that lies on the edge of a rounding:
    COV_COMPUTE_BF16: the operands of each product with a weight matrix and of those of attention,
        forward and backward, are rounded to bf16
    COV_WEIGHTS_BF16: every parameter, key and value is rounded to bf16
    COV_WEIGHTS_INT8: matrices are bytes with one scale per output, their inputs bytes with one scale
        per row; keys and values bf16

One file for each model of make.py, with tokens of its own: the first of those that are
tried for which the last bits of the operands decide no rounding. Layout, little-endian:
    magic "COVLOWP1", u32 version (1), i32 x 2: sequences, sequence length,
    then sections, each u64 byte length + bytes: tokens i32, targets i32, coefficients f32,
    log_probs f32 (sequences, length, vocab) in fp32;
    compute bf16: log_probs f32, gradients f32 of the mean NLL, coefficient_gradients f32,
    losses f64 and norms f32 of AdamW steps, parameters f32 after them;
    weights bf16: log_probs f32; weights int8: log_probs f32.

And one for each set of adapters of make_adapters.py under COV_COMPUTE_BF16, as kernels/include/covenant/lora.h
defines their gradients: the same up to fp32 log_probs (without adapters), then log_probs f32 with them,
gradients f32 of the mean NLL by the adapters, coefficient_gradients f32.
"""

import struct

import numpy as np
import torch
from golden import ADAPTERS, MODELS, Task, adapters_of, build, flat, parameters_of, write
from transformers.models.llama import modeling_llama

SHAPE = (2, 9)
TRIES = 400
noise = 0.0


def about(x, bits=1):
    return x if noise == 0 else x * (1 + bits * noise * (2 * torch.rand_like(x) - 1))


def bf16(x):
    return x.to(torch.bfloat16).to(torch.float32)


def product(a, b):
    return (a.double() @ b.double()).float()


class Bf16Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        x = bf16(about(x))
        ctx.save_for_backward(x, w)
        return product(x, bf16(w).T)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dy = bf16(about(dy))
        rows = dy.reshape(-1, dy.shape[-1])
        return product(dy, bf16(w)), product(rows.T, x.reshape(-1, x.shape[-1]))


class Bf16Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, a, b, scale):
        for r in range(len(a)):  # in fp32 and in this order, as its sums are rounded to bf16
            w = w + (scale * b[:, r : r + 1]) * a[r : r + 1]
        x = bf16(about(x))
        ctx.save_for_backward(x, w, a, b)
        ctx.scale = scale
        return product(x, bf16(w).T)

    @staticmethod
    def backward(ctx, dy):
        x, w, a, b = ctx.saved_tensors
        dy = bf16(about(dy))
        dx = product(dy, bf16(w))
        dy, x = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        inner = bf16(about(product(x, bf16(ctx.scale * a).T)))
        outer = bf16(about(product(dy, bf16(ctx.scale * b))))
        return dx, None, product(outer.T, x), product(dy.T, inner), None


def bytes_of(x):
    """Nearest integers in units of the largest magnitude / 127 of each row, and these units."""
    largest = x.abs().amax(-1, keepdim=True)
    return torch.round(x * (127.0 / largest)), largest / 127.0


def int8_linear(x, w):
    q, unit = bytes_of(about(x))
    p, column = bytes_of(w)
    return product(q, p.T) * unit * column.squeeze(-1)


def replace_linear(model, function):
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = lambda x, module=module: function(x, module.weight)


eager = modeling_llama.eager_attention_forward


def per_query(module, x):
    return modeling_llama.repeat_kv(x, module.num_key_value_groups)


class Bf16Attention(torch.autograd.Function):
    """Causal attention over (batch, heads, positions, dim)."""

    @staticmethod
    def forward(ctx, q, k, v, scale):
        q, k, v = (bf16(about(x)) for x in (q, k, v))
        scores = product(q, k.mT) * scale
        unseen = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(unseen, float("-inf"))
        # The exponent's last bit is several of its result.
        out = product(bf16(about(scores.softmax(-1), 8)), v)
        ctx.save_for_backward(q, k, v, out, scores.logsumexp(-1, keepdim=True), unseen)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, out, lse, unseen = ctx.saved_tensors
        delta = (dout * out).sum(-1, keepdim=True)
        dout = bf16(about(dout))
        p = about((product(q, k.mT) * ctx.scale - lse).masked_fill(unseen, float("-inf")).exp(), 8)
        ds = bf16(p * (about(product(dout, v.mT)) - delta) * ctx.scale)
        return product(ds, k), product(ds.mT, q), product(bf16(p).mT, dout), None


def attention_bf16(module, query, key, value, attention_mask, scaling, **kwargs):
    out = Bf16Attention.apply(query, per_query(module, key), per_query(module, value), scaling)
    return out.transpose(1, 2).contiguous(), None


def compute_bf16(model):
    replace_linear(model, Bf16Linear.apply)
    modeling_llama.eager_attention_forward = attention_bf16


def attention_of_rounded(module, query, key, value, *args, **kwargs):
    # What a sum that cancels leaves is known to fewer bits.
    return eager(module, query, bf16(about(key, 3)), bf16(about(value, 3)), *args, **kwargs)


def single_passes(m, task):
    """Everything but the steps, whose sums of parameters are beyond what one can choose."""
    model = build(m)
    compute_bf16(model)
    params = [p for _, p in parameters_of(model, m["tied"])]
    results = [flat([task.log_probs(model)]),
               *(np.frombuffer(g, "<f4") for g in task.gradients(model, params))]
    modeling_llama.eager_attention_forward = attention_of_rounded
    with torch.no_grad():
        model = build(m)
        for p in model.parameters():
            p.copy_(bf16(p))
        replace_linear(model, lambda x, w: product(x, w.T))
        results.append(flat([task.log_probs(model)]))
        model = build(m)
        replace_linear(model, int8_linear)
        results.append(flat([task.log_probs(model)]))
    modeling_llama.eager_attention_forward = eager
    return results


def single_passes_adapted(s):
    def run(m, task):
        model = build(m).requires_grad_(False)
        compute_bf16(model)
        params, modules = [], dict(model.named_modules())
        for layer, projection, a, b in adapters_of(s):
            (name,) = [n for n in modules if ".layers.%d." % layer in n and n.endswith(projection)]
            params += [a.requires_grad_(), b.requires_grad_()]
            modules[name].forward = lambda x, w=modules[name].weight, a=a, b=b: Bf16Adapted.apply(
                x, w, a, b, s["alpha"] / s["rank"])
        results = [flat([task.log_probs(model)]),
                   *(np.frombuffer(g, "<f4") for g in task.gradients(model, params))]
        modeling_llama.eager_attention_forward = eager
        return results
    return run


def choose(m, single_passes, level, draws):
    """The first task whose results stay what they are under noise (of some last bits of fp32), and these."""
    global noise
    for seed in range(TRIES):
        task = Task(m, seed, SHAPE)
        noise = 0.0
        results = single_passes(m, task)
        noise = level
        moved = [np.abs(a - b).max() / np.abs(a).max() for _ in range(draws)
                 for a, b in zip(results, single_passes(m, task))]
        noise = 0.0
        if max(moved) < 2e-6:
            print("seed", seed, "moved by", max(moved))
            return task, results
    raise SystemExit("no task without an operand on an edge")


def begin(m, task):
    fp32 = flat([task.log_probs(build(m))])
    return [x.tobytes() for x in (task.tokens, task.targets, task.coefficients, fp32)]


HEADER = b"COVLOWP1" + struct.pack("<I2i", 1, *SHAPE)


def make(name, m):
    task, (log_probs, mean, weighted, weights_bf16, weights_int8) = choose(m, single_passes, 2e-7, 4)
    sections = begin(m, task) + [x.tobytes() for x in (log_probs, mean, weighted)]
    model = build(m)
    compute_bf16(model)
    params = [p for _, p in parameters_of(model, m["tied"])]
    sections += task.train(model, params, decayed=lambda p: p.dim() > 1)
    sections += [weights_bf16.tobytes(), weights_int8.tobytes()]
    modeling_llama.eager_attention_forward = eager
    write("rounded-" + name, HEADER, sections)


def make_adapted(name, s):
    m = MODELS[s["model"]]
    task, results = choose(m, single_passes_adapted(s), 4e-7, 4)
    write("rounded-" + name, HEADER, begin(m, task) + [x.tobytes() for x in results])


for name, shape in MODELS.items():
    make(name, shape)
for name, settings in ADAPTERS.items():
    make_adapted(name, settings)
