"""Golden vectors of low-rank adapters, computed by peft, transformers and torch in fp32.

    venv/bin/python test/vectors/models/make_adapters.py

One file for each set of adapters, on the model, tokens, targets and coefficients of make.py. Layout,
little-endian:
    magic "COVLORA1", u32 version (1)
    i32 x 2: rank, targets (bits of cov_lora_target);  f32: alpha
    f32 x 6: learning rate, beta1, beta2, epsilon, weight decay, gradient clip
    then sections, each u64 byte length + bytes:
    adapters f32: per layer, per target in the order of the bits, A (rank, inputs), B (outputs, rank),
    log_probs f32 (sequences, length, vocab),
    gradients f32 of the mean NLL over scored positions, in the order of the adapters,
    coefficient_gradients f32 of sum(c * log p) at temperature 0.7,
    losses f64 (steps), norms f32 (steps), final f32: adapters after that many AdamW steps of them alone,
    merged f32: the model's flat parameters with the first adapters merged into them.
"""

import struct

import torch
from golden import (ADAPTERS, MODELS, OPTIMIZER, Task, adapters_of, build, flat, parameters_of,
                    write)
from peft import LoraConfig, get_peft_model


def make(name, s):
    m = MODELS[s["model"]]
    base = build(m)
    adapters = adapters_of(s)
    wanted = sorted({projection for _, projection, _, _ in adapters})
    model = get_peft_model(base, LoraConfig(
        r=s["rank"], lora_alpha=s["alpha"], lora_dropout=0.0, bias="none", target_modules=wanted))
    model.eval()
    named = dict(model.named_parameters())
    params = []
    for layer, projection, a, b in adapters:
        for half, value in (("A", a), ("B", b)):
            (p,) = [p for n, p in named.items()
                    if ".layers.%d." % layer in n and ".%s.lora_%s." % (projection, half) in n]
            with torch.no_grad():
                p.copy_(value)
            params.append(p)
    assert len(params) == sum("lora_" in n for n in named)
    task = Task(m)
    sections = [flat(params).tobytes(), flat([task.log_probs(model)]).tobytes(),
                *task.gradients(model, params)]
    begin = [p.detach().clone() for p in params]
    sections += task.train(model, params, decayed=lambda p: True)
    with torch.no_grad():
        for p, value in zip(params, begin):
            p.copy_(value)
    merged = model.merge_and_unload()
    sections.append(flat([p for _, p in parameters_of(merged, m["tied"])]).tobytes())
    o = OPTIMIZER
    header = b"COVLORA1" + struct.pack("<I2if", 1, s["rank"], s["targets"], s["alpha"])
    header += struct.pack("<6f", o["lr"], o["beta1"], o["beta2"], o["eps"], o["decay"], o["clip"])
    write(name, header, sections)


for name, settings in ADAPTERS.items():
    make(name, settings)
