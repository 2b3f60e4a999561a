#!/usr/bin/env python3
"""Writes the golden vectors of covenant.sparse.v1: python3 test/vectors/sparse/make.py

A slow second implementation of the format, from its description in kernels/include/covenant/sparse.h alone: exact
rationals instead of floats wherever a real number is meant, strings of bits instead of bit tricks, sorting instead of
selection. It shares no code and no table with the kernels; the compiled code must give the same bytes.

Each case is one file, all little-endian:
  "CVT1" · u32 mode · u32 keep · f32 beta · u32 tensors · u64 length of each
  · base, current, error feedback before: f32 each · error feedback after: f32 · u64 body length · body
merge.bin holds "CVT2" · u32 mode · u32 keep · u32 tensors · lengths · u32 peers · per peer u64 length, body
  · f32 weights · u32 merges · per merge u32 rule, u32 clip, u64 length, merged update.
"""
import math
import os
import struct
from collections import Counter
from decimal import Decimal, getcontext
from fractions import Fraction

getcontext().prec = 80
CHUNK = 4096
HERE = os.path.dirname(os.path.abspath(__file__))


# --- fp32 by hand ---------------------------------------------------------------------------------------------------

def bits_of(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def round_to_f32(exact, zero=0.0):
    """The fp32 nearest to a rational, ties to even, as a Python float; `zero` is what an exact zero becomes."""
    if exact == 0:
        return zero
    sign, magnitude = (-1, -exact) if exact < 0 else (1, exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    return sign * float(round(magnitude / unit) * unit)


def add(a, b):
    return round_to_f32(Fraction(a) + Fraction(b))


def multiply(a, b):
    return round_to_f32(Fraction(a) * Fraction(b), math.copysign(1.0, a) * math.copysign(1.0, b) * 0.0)


def power(z):
    """fp32 nearest to 2^(z/32)."""
    return round_to_f32(Fraction(Decimal(2) ** (Decimal(z) / 32)))


def log2_rounded(x, parts):
    """round(parts · log2(x)) of a positive rational."""
    exact = Decimal(x.numerator) / Decimal(x.denominator)
    return math.floor(exact.ln() / Decimal(2).ln() * parts + Decimal("0.5"))


# --- bit strings ----------------------------------------------------------------------------------------------------

def pack(bits):
    bits = bits + [0] * (-len(bits) % 8)
    return bytes(sum(bit << i for i, bit in enumerate(bits[at:at + 8])) for at in range(0, len(bits), 8))


def number_bits(value, width):
    return [value >> i & 1 for i in range(width)]


def elias_fano(indices, low, upper_bits):
    lows = [bit for index in indices for bit in number_bits(index % 2 ** low, low)]
    upper = [0] * upper_bits
    for j, index in enumerate(indices):
        upper[index // 2 ** low + j] = 1
    return pack(lows) + pack(upper)


# --- compress -------------------------------------------------------------------------------------------------------

def chunk_scale(values):
    """round(16 log2 mean |v|), mantissas cut to the exponent of the largest; None if all are zero."""
    keys = [bits_of(value) & 0x7FFFFFFF for value in values]
    if max(keys) == 0:
        return None
    exponent = max(1, max(keys) >> 23)
    total = 0
    for key in keys:
        own = max(1, key >> 23)
        mantissa = key & 0x7FFFFF | (0x800000 if key >> 23 else 0)
        total += mantissa >> (exponent - own)
    return log2_rounded(Fraction(total, len(values)) * Fraction(2) ** (exponent - 150), 16)


def two_levels(positions):
    """Levels in 1/32 octave of the best split of a multiset of positions in 1/32 octave."""
    bins = sorted(set(positions))
    counts = {b: positions.count(b) for b in bins}
    total = sum(counts.values())
    value_sum = 0.0
    for b in bins:
        value_sum += counts[b] * power(b)
    best, low_mean, high_mean = -1.0, value_sum / total, value_sum / total
    low_count, low_sum = 0, 0.0
    for b in bins[:-1]:
        low_count += counts[b]
        low_sum += counts[b] * power(b)
        high_count, high_sum = total - low_count, value_sum - low_sum
        energy = low_sum * low_sum / low_count + high_sum * high_sum / high_count
        if energy > best:
            best, low_mean, high_mean = energy, low_sum / low_count, high_sum / high_count
    low = min(8, max(-247, log2_rounded(Fraction(low_mean), 32)))
    high = min(247, max(-8, log2_rounded(Fraction(high_mean), 32)))
    return low, max(low, high)


class TensorUpdate:
    """What one tensor sends: per chunk its length and None, or scale, indices and values as coded."""

    def __init__(self, a, keep, mode):
        self.chunks = []
        self.header = bytes(4 if mode == 2 else 2)
        self.rest = list(a)
        picked = []
        for at in range(0, len(a), CHUNK):
            chunk = a[at:at + CHUNK]
            m = max(1, keep * len(chunk) // CHUNK)
            order = sorted(range(len(chunk)), key=lambda i: (-abs(chunk[i]), i))
            indices = sorted(order[:m])
            scale = chunk_scale([chunk[i] for i in indices])
            picked.append((at, len(chunk), indices, None if scale is None or scale < -1600 else scale))
        scales = [scale for *_, scale in picked if scale is not None]
        top = max(scales) if scales else None
        sends = [scale is not None and 255 - (top - scale) >= 1 for *_, scale in picked]
        low = high = 0
        if top is not None:
            self.header = struct.pack("<h", top)
            if mode == 2:
                positions = []
                sample = picked[::max(1, len(picked) // 32)]
                sample_top = max([scale for *_, scale in sample if scale is not None], default=0)
                for at, _, indices, scale in sample:
                    for i in indices if scale is not None and sample_top - scale <= 254 else []:
                        value = abs(a[at + i])
                        where = -256 if value == 0 else log2_rounded(Fraction(value), 32) - 2 * scale
                        positions.append(min(255, max(-256, where)))
                if positions:
                    low, high = two_levels(positions)
                self.header += bytes([8 - low, high + 8])
        for (at, n, indices, scale), sent in zip(picked, sends):
            layout = (6 * len(indices) + 7) // 8 + (len(indices) + -(-n // 64) + 7) // 8 + (
                mode * len(indices) + 7) // 8
            if not sent:
                self.chunks.append((n, [], [], bytes(1 + layout)))
                continue
            low_value, high_value = power(2 * scale + low), power(2 * scale + high)
            middle = math.inf if low == high else multiply(add(low_value, high_value), 0.5)
            values, codes = [], []
            for i in indices:
                value = a[at + i]
                negative, is_high = math.copysign(1, value) < 0, abs(value) > middle
                codes += [int(negative)] + ([int(is_high)] if mode == 2 else [])
                coded = high_value if is_high else low_value
                values.append(-coded if negative else coded)
                self.rest[at + i] = add(value, -values[-1])
            data = bytes([255 - (top - scale)])
            data += elias_fano(indices, 6, len(indices) + -(-n // 64)) + pack(codes)
            assert len(data) == 1 + layout
            self.chunks.append((n, indices, values, data))


def compress(base, current, feedback, beta, lengths, keep, mode):
    a = []
    for theta, inner, e in zip(base, current, feedback):
        delta = add(theta, -inner)
        a.append(round_to_f32(Fraction(beta) * Fraction(e) + Fraction(delta)))
    body = b"CVS1" + struct.pack("<BBHI", mode, 1, keep, len(lengths))
    after, tensors, at = [], [], 0
    for length in lengths:
        tensor = TensorUpdate(a[at:at + length], keep, mode)
        tensors.append(tensor)
        body += tensor.header + b"".join(chunk[3] for chunk in tensor.chunks)
        after += tensor.rest
        at += length
    return body, after, tensors


# --- merge ----------------------------------------------------------------------------------------------------------

def positions_bytes(n, positions):
    m = len(positions)
    low = (n // m).bit_length() - 1
    upper = m + ((n - 1) >> low)
    if (n + 7) // 8 < (low * m + 7) // 8 + (upper + 7) // 8:
        return pack([int(i in set(positions)) for i in range(n)])
    return elias_fano(positions, low, upper)


def merge(peers, weights, rule, clip):
    peers = [(tensors, w) for tensors, w in zip(peers, weights) if w > 0]
    out = b"CVM1" + struct.pack("<BBHI", rule, clip, len(peers), len(peers[0][0]))
    total = 0.0
    for _, w in peers:
        total = add(total, w)
    for t in range(len(peers[0][0])):
        norms = []
        for tensors, _ in peers:
            square = 0.0
            counts = Counter(abs(value) for _, _, values, _ in tensors[t].chunks for value in values)
            for magnitude in sorted(counts):
                square += counts[magnitude] * (magnitude * magnitude)
            norms.append(math.sqrt(square))
        median = sorted(norms)[(len(norms) - 1) // 2]
        factors = [round_to_f32(Fraction(median / norm)) if clip and norm > median else 1.0 for norm in norms]
        for c in range(len(peers[0][0][t].chunks)):
            n = peers[0][0][t].chunks[c][0]
            sums, sent = {}, {}
            for (tensors, w), factor in zip(peers, factors):
                _, indices, values, _ = tensors[t].chunks[c]
                for i, value in zip(indices, values):
                    sums[i] = add(sums.get(i, 0.0), multiply(w, multiply(factor, value)))
                    sent[i] = add(sent.get(i, 0.0), w)
            positions = sorted(sums)
            out += struct.pack("<H", len(positions))
            if positions:
                out += positions_bytes(n, positions)
                for i in positions:
                    divisor = total if rule == 1 else sent[i]
                    out += struct.pack("<f", round_to_f32(Fraction(sums[i]) / Fraction(divisor)))
    return out


# --- data -----------------------------------------------------------------------------------------------------------

class Noise:
    """A small generator, so that the vectors do not depend on a library's."""

    def __init__(self, seed):
        self.state = seed

    def uniform(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2 ** 64
        return ((self.state >> 40) + 0.5) / 2 ** 24

    def value(self, scale):
        u = self.uniform() - 0.5
        return round_to_f32(Fraction(math.copysign(-math.log(1 - 2 * abs(u)), u) * scale))

    def values(self, count, scale):
        return [self.value(scale) for _ in range(count)]


def floats(values):
    return struct.pack("<%df" % len(values), *values)


def case_file(name, lengths, keep, mode, beta, base, current, feedback):
    beta = round_to_f32(Fraction(beta))
    body, after, _ = compress(base, current, feedback, beta, lengths, keep, mode)
    data = b"CVT1" + struct.pack("<IIfI", mode, keep, beta, len(lengths)) + struct.pack("<%dQ" % len(lengths), *lengths)
    data += floats(base) + floats(current) + floats(feedback) + floats(after) + struct.pack("<Q", len(body)) + body
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)


def laplace_case(name, seed, lengths, keep, mode, beta=0.95):
    noise = Noise(seed)
    count = sum(lengths)
    base = noise.values(count, 0.5)
    current = [add(theta, noise.value(0.003)) for theta in base]
    case_file(name, lengths, keep, mode, beta, base, current, noise.values(count, 0.002))


def edge_case(name, mode):
    """Ties, zeros, signed zeros, subnormals, chunks of very different size, a tensor that sends nothing."""
    lengths = [4096, 5000, 0, 1, 100, 4096]
    count = sum(lengths)
    base, zero = [0.0] * count, [0.0] * count
    for i in range(4096):
        base[i] = (1.0 if i % 3 else -1.0) if i < 4000 else 1.5
    noise = Noise(99)
    for i in range(4096, 8192):
        base[i] = noise.value(1.0)
    base[8192] = 1e-7
    base[9096] = -2.5
    for i in range(9097, 9197):
        base[i] = -0.0
    base[9197] = round_to_f32(Fraction(2) ** -140)
    base[9198] = round_to_f32(Fraction(2) ** -70)
    case_file(name, lengths, 64, mode, 0.95, base, zero, zero)


def merge_file(name):
    lengths, keep, mode = [4096 + 700, 128, 60], 64, 2
    count = sum(lengths)
    bodies, updates = [], []
    shared = Noise(5).values(count, 1.0)
    for peer in range(4):
        noise = Noise(1000 + peer)
        a = [add(multiply(s, (1.0, 1.0, 5.0, 0.5)[peer]), noise.value(0.3)) for s in shared]
        body, _, tensors = compress(a, [0.0] * count, [0.0] * count, 0.0, lengths, keep, mode)
        bodies.append(body)
        updates.append(tensors)
    weights = [1.0, 0.75, 2.0, 0.0]
    data = b"CVT2" + struct.pack("<III", mode, keep, len(lengths)) + struct.pack("<%dQ" % len(lengths), *lengths)
    data += struct.pack("<I", len(bodies))
    for body in bodies:
        data += struct.pack("<Q", len(body)) + body
    data += floats(weights) + struct.pack("<I", 4)
    for rule in (0, 1):
        for clip in (0, 1):
            merged = merge(updates, weights, rule, clip)
            data += struct.pack("<IIQ", rule, clip, len(merged)) + merged
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)


if __name__ == "__main__":
    laplace_case("two-bit.bin", 1, [4096 + 127, 128, 4099, 1], 64, 2)
    laplace_case("one-bit.bin", 2, [4096, 1000, 61], 64, 1)
    laplace_case("dense.bin", 3, [4096 + 9], 1000, 2, 0.5)
    edge_case("edges-two-bit.bin", 2)
    edge_case("edges-one-bit.bin", 1)
    merge_file("merge.bin")
