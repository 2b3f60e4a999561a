// Blocks of 64 values of the activation codecs. Compiled once for each CPU path, so that everything
// here has internal linkage; the loops are made for a compiler to vectorise, and every path has the
// same bits.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "codec/activation.h"

namespace covenant::codec {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int32_t kBlock = kActivationBlock;

// Eight values of a block, wherever they lie.
typedef float Octet __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t OctetBits __attribute__((vector_size(32)));

float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// The smallest bf16 that is not below a value >= 0.
uint16_t bf16_above(float value) {
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0xffff) >> 16);
}

// Of each pair of lanes a, b that are swapped: a + b into the lower one, a - b into the upper one,
// where `upper_sign` has the sign bit set.
template <int k0, int k1, int k2, int k3, int k4, int k5, int k6, int k7>
void butterflies(Octet* block, const OctetBits& upper_sign) {
#pragma GCC unroll 8
  for (int32_t i = 0; i < kBlock / 8; ++i) {
    const Octet swapped =
        __builtin_shufflevector(block[i], block[i], k0, k1, k2, k3, k4, k5, k6, k7);
    block[i] = swapped + reinterpret_cast<Octet>(reinterpret_cast<OctetBits>(block[i]) ^ upper_sign);
  }
}

// The same for octets that are `half` apart.
template <int half>
void across(Octet* block) {
#pragma GCC unroll 4
  for (int32_t pair = 0; pair < kBlock / 16; ++pair) {
    const int32_t i = pair / half * 2 * half + pair % half;
    const Octet a = block[i], b = block[i + half];
    block[i] = a + b;
    block[i + half] = a - b;
  }
}

// Walsh-Hadamard in six rounds, of neighbours first, then / 8: its own inverse.
void hadamard(const float* from, float* to) {
  Octet block[kBlock / 8];
#pragma GCC unroll 8
  for (int32_t i = 0; i < kBlock / 8; ++i) block[i] = reinterpret_cast<const Octet*>(from)[i];
  constexpr uint32_t s = 0x80000000;
  butterflies<1, 0, 3, 2, 5, 4, 7, 6>(block, OctetBits{0, s, 0, s, 0, s, 0, s});
  butterflies<2, 3, 0, 1, 6, 7, 4, 5>(block, OctetBits{0, 0, s, s, 0, 0, s, s});
  butterflies<4, 5, 6, 7, 0, 1, 2, 3>(block, OctetBits{0, 0, 0, 0, s, s, s, s});
  across<1>(block);
  across<2>(block);
  across<4>(block);
#pragma GCC unroll 8
  for (int32_t i = 0; i < kBlock / 8; ++i) reinterpret_cast<Octet*>(to)[i] = block[i] * 0.125f;
}

// Codes of a block up to `most`; false when a value is not finite or above `largest_max`.
bool quantise(const float* values, int32_t most, float largest_max, uint8_t* scale, int8_t* codes) {
  int32_t largest_bits = 0;
  for (int32_t i = 0; i < kBlock; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(values[i]) & 0x7fffffff;
    largest_bits = bits > largest_bits ? bits : largest_bits;
  }
  const float largest = std::bit_cast<float>(largest_bits);
  if (!(largest <= largest_max)) return false;
  const uint16_t bits = bf16_above(largest / static_cast<float>(most));
  std::memcpy(scale, &bits, sizeof bits);
  const float step = from_bf16(bits);
  if (step == 0) {
    std::memset(codes, 0, kBlock);
    return true;
  }
  for (int32_t i = 0; i < kBlock; ++i) {
    // Quotients are far below 2^22, so that this sum rounds them to an integer, ties to even. A step
    // of the smallest subnormals may be coarser than the bound: the clamp keeps the format.
    const float shifted = values[i] / step + 0x1.8p23f;
    int32_t code = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(0x1.8p23f);
    code = code > most ? most : code;
    code = code < -most ? -most : code;
    codes[i] = static_cast<int8_t>(code);
  }
  return true;
}

// What codes stand for; false when one is beyond `most`, or not zero while the scale is.
bool expand(const int8_t* codes, uint16_t scale, int32_t most, float* values) {
  const float step = from_bf16(scale);
  const auto beyond = static_cast<int8_t>(-most - 1);
  uint8_t bad = 0, any = 0;
  for (int32_t i = 0; i < kBlock; ++i) {
    bad = static_cast<uint8_t>(bad | (codes[i] == beyond ? 1 : 0));
    any = static_cast<uint8_t>(any | static_cast<uint8_t>(codes[i]));
  }
  for (int32_t i = 0; i < kBlock; ++i) values[i] = static_cast<float>(codes[i]) * step;
  return bad == 0 && (scale != 0 || any == 0);
}

bool finite(const float* values, int32_t n) {
  int32_t largest = 0;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(values[i]) & 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return largest < 0x7f800000;
}

void pack_nibbles(const int8_t* codes, uint8_t* out) {
  uint16_t pairs[kBlock / 2];
  std::memcpy(pairs, codes, kBlock);
  for (int32_t i = 0; i < kBlock / 2; ++i)
    out[i] = static_cast<uint8_t>((pairs[i] & 15) | (pairs[i] >> 4 & 0xf0));
}

void unpack_nibbles(const uint8_t* in, int8_t* codes) {
  uint16_t pairs[kBlock / 2];
  for (int32_t i = 0; i < kBlock / 2; ++i)
    pairs[i] = static_cast<uint16_t>((in[i] & 15) | (in[i] & 0xf0) << 4);
  std::memcpy(codes, pairs, kBlock);
  for (int32_t i = 0; i < kBlock; ++i) codes[i] = static_cast<int8_t>((codes[i] ^ 8) - 8);
}

bool round_block(const float* values, uint8_t* out) {
  uint16_t rounded[kBlock];
  uint32_t largest = 0;
  for (int32_t i = 0; i < kBlock; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    const uint32_t up = 0x7fff + (bits >> 16 & 1);
    rounded[i] = static_cast<uint16_t>((bits + up) >> 16);
    // Without the sign, since the largest NaNs would round to a zero.
    const uint32_t magnitude = (bits & 0x7fffffffu) + up;
    largest = magnitude > largest ? magnitude : largest;
  }
  std::memcpy(out, rounded, sizeof rounded);
  return largest < 0x7f800000u;
}

bool widen_block(const uint8_t* in, float* values) {
  uint16_t rounded[kBlock];
  std::memcpy(rounded, in, sizeof rounded);
  uint32_t largest = 0;
  for (int32_t i = 0; i < kBlock; ++i) {
    values[i] = from_bf16(rounded[i]);
    const uint32_t exponent = rounded[i] & 0x7f80u;
    largest = exponent > largest ? exponent : largest;
  }
  return largest != 0x7f80;
}

// One block, whole: 64 values.
bool encode_block(int32_t kind, const float* values, uint8_t* out) {
  if (kind == COV_ACTIVATION_BF16) return round_block(values, out);
  if (kind == COV_ACTIVATION_INT8)
    return quantise(values, 127, activation_max(kind), out, reinterpret_cast<int8_t*>(out + 2));
  int8_t codes[kBlock];
  float rotated[kBlock];
  hadamard(values, rotated);
  if (!quantise(rotated, 7, activation_max(kind), out, codes)) return false;
  pack_nibbles(codes, out + 2);
  return true;
}

// The values of a code of which n count: what lies beyond them may be anything.
bool decode_block(int32_t kind, const uint8_t* in, uint32_t scale_max, int32_t n, float* values) {
  if (kind == COV_ACTIVATION_BF16) return widen_block(in, values);
  uint16_t scale;
  std::memcpy(&scale, in, sizeof scale);
  if (scale > scale_max) return false;
  int8_t codes[kBlock];
  bool good;
  if (kind == COV_ACTIVATION_INT8) {
    std::memcpy(codes, in + 2, sizeof codes);
    good = expand(codes, scale, 127, values);
  } else {
    float rotated[kBlock];
    unpack_nibbles(in + 2, codes);
    good = expand(codes, scale, 7, rotated);
    hadamard(rotated, values);
  }
  return (n == kBlock ? finite(values, kBlock) : finite(values, n)) && good;
}

// Bytes of the code of n <= 64 values. That of a short block is the beginning of a whole one, but
// for int4, which fills blocks up.
int32_t block_bytes(int32_t kind, int32_t n) {
  return kind == COV_ACTIVATION_BF16 ? 2 * n : kind == COV_ACTIVATION_INT8 ? 2 + n : 2 + kBlock / 2;
}

bool encode_row(int32_t kind, const float* values, int32_t width, uint8_t* out) {
  int32_t at = 0;
  for (; at + kBlock <= width; at += kBlock, out += block_bytes(kind, kBlock)) {
    if (!encode_block(kind, values + at, out)) return false;
  }
  if (at == width) return true;
  const int32_t rest = width - at;
  float block[kBlock] = {};
  uint8_t code[2 * kBlock];
  std::memcpy(block, values + at, static_cast<size_t>(rest) * sizeof *values);
  if (!encode_block(kind, block, code)) return false;
  std::memcpy(out, code, static_cast<size_t>(block_bytes(kind, rest)));
  return true;
}

bool decode_row(int32_t kind, const uint8_t* in, int32_t width, float* values) {
  const uint32_t scale_max = activation_scale_max(kind);
  bool good = true;
  int32_t at = 0;
  for (; at + kBlock <= width; at += kBlock, in += block_bytes(kind, kBlock))
    good &= decode_block(kind, in, scale_max, kBlock, values + at);
  if (at == width) return good;
  const int32_t rest = width - at;
  float block[kBlock];
  uint8_t code[2 * kBlock] = {};
  std::memcpy(code, in, static_cast<size_t>(block_bytes(kind, rest)));
  if (!decode_block(kind, code, scale_max, rest, block)) return false;
  std::memcpy(values + at, block, static_cast<size_t>(rest) * sizeof *values);
  return good;
}

}  // namespace
}  // namespace covenant::codec
