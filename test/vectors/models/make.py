"""Golden vectors of the CPU engine, computed by transformers and torch in fp32.

    python3 -m venv venv && venv/bin/pip install torch transformers peft numpy
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

import struct

from golden import (LENGTH, MODELS, OPTIMIZER, SEQUENCES, VERSION, Task, build, flat, parameters_of,
                    write)


def make(name, m):
    model = build(m)
    named = parameters_of(model, m["tied"])
    params = [p for _, p in named]
    task = Task(m)
    text = "".join("%s %d %d\n" % (n, p.shape[0], p.shape[1] if p.dim() > 1 else 1) for n, p in named)
    log_probs = task.log_probs(model)
    mean, weighted = task.gradients(model, params)
    sections = [text.encode(), flat(params).tobytes(), task.tokens.tobytes(), task.targets.tobytes(),
                flat([log_probs]).tobytes(),
                flat([-(log_probs.exp() * log_probs).sum(-1)]).tobytes(),
                mean, task.coefficients.tobytes(), weighted,
                *task.train(model, params, decayed=lambda p: p.dim() > 1)]
    o = OPTIMIZER
    header = b"COVGOLD1" + struct.pack("<I", VERSION)
    header += struct.pack("<8i", m["vocab"], m["hidden"], m["inter"], m["layers"], m["heads"], m["kv"],
                          m["positions"], int(m["tied"]))
    header += struct.pack("<2d2i", m["theta"], m["eps"], SEQUENCES, LENGTH)
    header += struct.pack("<6f", o["lr"], o["beta1"], o["beta2"], o["eps"], o["decay"], o["clip"])
    write(name, header, sections)


for name, shape in MODELS.items():
    make(name, shape)
