// MLHF's coordinatewise network in one pass over memory: tanh of three inputs, two LSTM layers
// of 4 units, a linear map to 1, softplus. reference.py says the same in a few lines.
//
// Everything is laid out [features, n], so a vector register holds one feature of LANES
// neighbouring coordinates, and a weight is one scalar for all of them. Written with the
// vector types that GCC and Clang share, for any instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lanes.h"

namespace {

constexpr int IN = 3, HIDDEN = 4, GATES = 4 * HIDDEN, STATE = 4 * HIDDEN;
constexpr int AT_ONCE = LANES == 16 ? GATES : 4;  // of 16 registers more would be spilled
typedef int32_t I __attribute__((vector_size(LANES * sizeof(int32_t))));

// Offsets in a kind's packed weights: gates in the order i, f, g, o.
constexpr int COLS1 = IN + HIDDEN, COLS2 = 2 * HIDDEN;
constexpr int W1 = 0, B1 = W1 + GATES * COLS1, W2 = B1 + GATES, B2 = W2 + GATES * COLS2;
constexpr int W3 = B2 + GATES, B3 = W3 + HIDDEN, WEIGHTS = B3 + 1;

INLINE V all(float a) { return V{} + a; }

#ifndef __AVX512DQ__
// max(low, min(high, z)); NaN stays NaN.
INLINE V between(float low, V z, float high) {
#if defined(__AVX__) && !defined(__AVX512F__)
  return (V)_mm256_max_ps((__m256)all(low), _mm256_min_ps((__m256)all(high), (__m256)z));
#else
  z = z > high ? all(high) : z;
  return z < low ? all(low) : z;
#endif
}
#endif

// 1 + a r + b r^2 + ...
INLINE V from_one(V r, float a, float b, float c, float d, float e) {
  return ((((e * r + d) * r + c) * r + b) * r + a) * r + 1.0f;
}

// 2^z for z <= 40 (larger ones count as 40), to 2e-7 of its size: a whole number by the
// exponent's bits, the rest by a polynomial fitted on where it lies. NaN stays NaN.
INLINE V exp2_of(V z) {
#ifdef __AVX512DQ__  // the rest in [0, 1)
  z = (V)_mm512_min_ps((__m512)all(40.0f), (__m512)z);
  const V r = (V)_mm512_reduce_ps((__m512)z, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const V p = from_one(r, 6.931530731936185e-01f, 2.401536171009589e-01f, 5.5826317885842414e-02f,
                       8.989340290005088e-03f, 1.8775765927631916e-03f);
  return (V)_mm512_scalef_ps((__m512)p, (__m512)z);
#else  // in [-1/2, 1/2]
  z = between(-126.0f, z, 40.0f);
  // So large that its last bit is 1: a sum's low bits are the whole number, as an exponent.
  constexpr float MAGIC = 0x1.8p23f + 127.0f;
  const V shifted = z + MAGIC, r = z - (shifted - MAGIC);
  const V p = from_one(r, 6.931469670647613e-01f, 2.402211972384010e-01f, 5.550713273496898e-02f,
                       9.675541334449414e-03f, 1.3276471992851953e-03f);
  const I power = (I)shifted << 23;
  return p * (V)power;
#endif
}

constexpr float LOG2E = 1.4426950408889634f;

// sigmoid(x) = 1 / (1 + e) with e = 2^z, z = -x log2(e);
// tanh(x) = (1 - e) / (1 + e) with e = 2^z, z = -2x log2(e).
// The gates' weights are scaled when they are loaded, so that they sum up to z.
INLINE V sigmoid_at(V z) { return 1.0f / (1.0f + exp2_of(z)); }
INLINE V tanh_at(V z) { const V e = exp2_of(z); return (1.0f - e) / (1.0f + e); }

// tanh of the inputs, which may be tiny and must not drown in 1 - e: near 0 by its series.
INLINE V tanh_of(V x) {
  const V t = x * x;
  V near = all(2.0f / 15);
  near = near * t - 1.0f / 3;
  near = x + x * t * near;
  return t < 0.0036f ? near : tanh_at(-2.0f * LOG2E * x);
}

// log(1 + e) for 0 <= e <= 1, by 2 artanh(u), u = e / (2 + e) <= 1/3: small e stay exact.
INLINE V log1p_of(V e) {
  const V u = e / (2.0f + e), t = u * u;
  V s = all(1.0f / 15);
  s = s * t + 1.0f / 13;
  s = s * t + 1.0f / 11;
  s = s * t + 1.0f / 9;
  s = s * t + 1.0f / 7;
  s = s * t + 1.0f / 5;
  s = s * t + 1.0f / 3;
  s = s * t + 1.0f;
  return 2.0f * u * s;
}

INLINE V softplus(V y) {
  const V away = y > 0.0f ? -y : y;
  const V low = log1p_of(exp2_of(LOG2E * away));
  return y > 0.0f ? y + low : low;
}

// A weight as products read it. AVX multiplies by a number in memory only where it stands once
// for each lane; elsewhere one for all is as good, and smaller.
#if defined(__AVX__) && !defined(__AVX512F__)
typedef V Weight;
INLINE Weight weight(float a) { return all(a); }
#else
typedef float Weight;
INLINE Weight weight(float a) { return a; }
#endif

// One kind's weights, the gates' times -log2(e), for the tanh gate g twice that.
struct Weights {
  Weight of[WEIGHTS];
  explicit Weights(const float* packed) {
    for (int k = 0; k < WEIGHTS; ++k) of[k] = weight(packed[k]);
    for (int gate = 0; gate < GATES; ++gate) {
      const float scale = gate / HIDDEN == 2 ? -2.0f * LOG2E : -LOG2E;
      for (int c = 0; c < COLS1; ++c) of[W1 + gate * COLS1 + c] *= scale;
      for (int c = 0; c < COLS2; ++c) of[W2 + gate * COLS2 + c] *= scale;
      of[B1 + gate] *= scale;
      of[B2 + gate] *= scale;
    }
  }
};

template <int COLS>
INLINE V gate_sum(const Weight* w, const Weight* bias, int gate, const V* in) {
  V sum = V{} + bias[gate];
#pragma GCC unroll 16
  for (int c = 0; c < COLS; ++c) sum += w[gate * COLS + c] * in[c];
  return sum;
}

// in: the layer's inputs and its old h; c: the old c. Gives the new h and c. All five
// sigmoids and tanhs of a unit are fractions; brought together they need two divisions. First
// what the units have in common, then what waits for its own quotient: there is always work
// at hand that does not wait.
template <int COLS>
INLINE void cell(const Weight* w, const Weight* bias, const V* in, const V* c, V* h_new, V* c_new) {
  V e[GATES];
#pragma GCC unroll AT_ONCE
  for (int gate = 0; gate < GATES; ++gate) e[gate] = exp2_of(gate_sum<COLS>(w, bias, gate, in));
#pragma GCC unroll HIDDEN
  for (int j = 0; j < HIDDEN; ++j) {
    const V i = 1.0f + e[j], f = 1.0f + e[HIDDEN + j], g = e[2 * HIDDEN + j];
    const V o = 1.0f + e[3 * HIDDEN + j], ig = i * (1.0f + g);
    c_new[j] = (c[j] * ig + (1.0f - g) * f) / (f * ig);
    const V t = exp2_of(-2.0f * LOG2E * c_new[j]);
    h_new[j] = (1.0f - t) / (o * (1.0f + t));
  }
}

// State rows: h and c of the first layer, then of the second.
INLINE V network(const Weight* w, V* in1, V* state) {
  V in2[COLS2], h1[HIDDEN], h2[HIDDEN], c1[HIDDEN], c2[HIDDEN];
  for (int j = 0; j < HIDDEN; ++j) {
    in1[IN + j] = state[j];
    in2[HIDDEN + j] = state[2 * HIDDEN + j];
  }
  cell<COLS1>(w + W1, w + B1, in1, state + HIDDEN, h1, c1);
  for (int j = 0; j < HIDDEN; ++j) in2[j] = h1[j];
  cell<COLS2>(w + W2, w + B2, in2, state + 3 * HIDDEN, h2, c2);
  V y = V{} + w[B3];
  for (int j = 0; j < HIDDEN; ++j) {
    y += w[W3 + j] * h2[j];
    state[j] = h1[j];
    state[HIDDEN + j] = c1[j];
    state[2 * HIDDEN + j] = h2[j];
    state[3 * HIDDEN + j] = c2[j];
  }
  return y;
}

// A whole register goes in one piece: what GCC copies in halves stalls whoever reads it next.
INLINE V load(const float* from, int lanes) {
  if (lanes == LANES) return *(const V*)from;
  V v{};
  std::memcpy(&v, from, lanes * sizeof(float));
  return v;
}
INLINE void store(float* to, V v, int lanes) {
  if (lanes == LANES)
    *(V*)to = v;
  else
    std::memcpy(to, &v, lanes * sizeof(float));
}

struct Forward {
  const float *inputs[IN], *state_in;
  float *state_out, *out;
  std::ptrdiff_t n;
  float offset;

  template <bool WHOLE>
  INLINE void block(const Weight* w, std::ptrdiff_t at, int rest) const {
    const int lanes = WHOLE ? LANES : rest;
    V in1[COLS1], state[STATE];
    // The rows are more streams than processors follow: ask for the next block by hand.
    if (WHOLE)
      for (int row = 0; row < STATE; ++row) __builtin_prefetch(state_in + row * n + at + LANES, 1);
    for (int c = 0; c < IN; ++c) in1[c] = tanh_of(load(inputs[c] + at, lanes));
    for (int row = 0; row < STATE; ++row) state[row] = load(state_in + row * n + at, lanes);
    const V y = network(w, in1, state);
    for (int row = 0; row < STATE; ++row) store(state_out + row * n + at, state[row], lanes);
    store(out + at, softplus(y) + offset, lanes);
  }
};

struct Layer { V i[HIDDEN], f[HIDDEN], g[HIDDEN], o[HIDDEN], c[HIDDEN], t[HIDDEN], h[HIDDEN]; };

template <int COLS>
INLINE void cell_kept(const Weight* w, const Weight* bias, const V* in, const V* c, Layer& a) {
  for (int j = 0; j < HIDDEN; ++j) {
    a.i[j] = sigmoid_at(gate_sum<COLS>(w, bias, j, in));
    a.f[j] = sigmoid_at(gate_sum<COLS>(w, bias, HIDDEN + j, in));
    a.g[j] = tanh_at(gate_sum<COLS>(w, bias, 2 * HIDDEN + j, in));
    a.o[j] = sigmoid_at(gate_sum<COLS>(w, bias, 3 * HIDDEN + j, in));
    a.c[j] = a.f[j] * c[j] + a.i[j] * a.g[j];
    a.t[j] = tanh_at(-2.0f * LOG2E * a.c[j]);
    a.h[j] = a.o[j] * a.t[j];
  }
}

// dh, dc: gradients of the new h and c; dc becomes that of the old c. din is added to.
template <int COLS>
INLINE void cell_back(const float* w, const V* in, const V* c_old, const Layer& a, const V* dh,
                      V* dc, V* din, V* dw, V* db) {
  V dz[GATES];
  for (int j = 0; j < HIDDEN; ++j) {
    const V d = dc[j] + dh[j] * a.o[j] * (1.0f - a.t[j] * a.t[j]);
    dz[j] = d * a.g[j] * a.i[j] * (1.0f - a.i[j]);
    dz[HIDDEN + j] = d * c_old[j] * a.f[j] * (1.0f - a.f[j]);
    dz[2 * HIDDEN + j] = d * a.i[j] * (1.0f - a.g[j] * a.g[j]);
    dz[3 * HIDDEN + j] = dh[j] * a.t[j] * a.o[j] * (1.0f - a.o[j]);
    dc[j] = d * a.f[j];
  }
  for (int gate = 0; gate < GATES; ++gate) {
    db[gate] += dz[gate];
    for (int c = 0; c < COLS; ++c) {
      din[c] += w[gate * COLS + c] * dz[gate];
      dw[gate * COLS + c] += dz[gate] * in[c];
    }
  }
}

struct Backward {
  const float *inputs[IN], *state_in, *d_out, *d_state_out;  // d_state_out may be null
  float *d_inputs[IN], *d_state_in;
  std::ptrdiff_t n;

  template <bool WHOLE>
  INLINE void block(const Weight* w, const float* plain, V* dw, std::ptrdiff_t at, int rest) const {
    const int lanes = WHOLE ? LANES : rest;
    V in1[COLS1], in2[COLS2], c1[HIDDEN], c2[HIDDEN];
    for (int c = 0; c < IN; ++c) in1[c] = tanh_of(load(inputs[c] + at, lanes));
    for (int j = 0; j < HIDDEN; ++j) {
      in1[IN + j] = load(state_in + j * n + at, lanes);
      c1[j] = load(state_in + (HIDDEN + j) * n + at, lanes);
      in2[HIDDEN + j] = load(state_in + (2 * HIDDEN + j) * n + at, lanes);
      c2[j] = load(state_in + (3 * HIDDEN + j) * n + at, lanes);
    }
    Layer first, second;
    cell_kept<COLS1>(w + W1, w + B1, in1, c1, first);
    for (int j = 0; j < HIDDEN; ++j) in2[j] = first.h[j];
    cell_kept<COLS2>(w + W2, w + B2, in2, c2, second);
    V y = V{} + w[B3];
    for (int j = 0; j < HIDDEN; ++j) y += w[W3 + j] * second.h[j];

    const V dy = load(d_out + at, lanes) * sigmoid_at(-LOG2E * y);
    V dh1[HIDDEN], dc1[HIDDEN], dh2[HIDDEN], dc2[HIDDEN], din1[COLS1]{}, din2[COLS2]{};
    dw[B3] += dy;
    for (int j = 0; j < HIDDEN; ++j) {
      dw[W3 + j] += dy * second.h[j];
      dh2[j] = w[W3 + j] * dy;
      dh1[j] = dc1[j] = dc2[j] = V{};
      if (d_state_out != nullptr) {
        dh1[j] = load(d_state_out + j * n + at, lanes);
        dc1[j] = load(d_state_out + (HIDDEN + j) * n + at, lanes);
        dh2[j] += load(d_state_out + (2 * HIDDEN + j) * n + at, lanes);
        dc2[j] = load(d_state_out + (3 * HIDDEN + j) * n + at, lanes);
      }
    }
    cell_back<COLS2>(plain + W2, in2, c2, second, dh2, dc2, din2, dw + W2, dw + B2);
    for (int j = 0; j < HIDDEN; ++j) dh1[j] += din2[j];
    cell_back<COLS1>(plain + W1, in1, c1, first, dh1, dc1, din1, dw + W1, dw + B1);
    for (int j = 0; j < HIDDEN; ++j) {
      store(d_state_in + j * n + at, din1[IN + j], lanes);
      store(d_state_in + (HIDDEN + j) * n + at, dc1[j], lanes);
      store(d_state_in + (2 * HIDDEN + j) * n + at, din2[HIDDEN + j], lanes);
      store(d_state_in + (3 * HIDDEN + j) * n + at, dc2[j], lanes);
    }
    for (int c = 0; c < IN; ++c)
      store(d_inputs[c] + at, din1[c] * (1.0f - in1[c] * in1[c]), lanes);
  }
};

// Runs of coordinates that share weights: (start, end, kind) each, one after the other.
struct Segments {
  const int64_t* edges;
  int64_t count;

  // Calls each(begin, end, kind) for what lies in [begin, end) of every segment.
  template <typename Each>
  INLINE void within(int64_t begin, int64_t end, Each each) const {
    for (int64_t s = 0; s < count; ++s) {
      const int64_t* segment = edges + 3 * s;
      const int64_t from = segment[0] > begin ? segment[0] : begin;
      const int64_t to = segment[1] < end ? segment[1] : end;
      if (from < to) each(from, to, segment[2]);
    }
  }
};

// The coordinates [begin, end). state_in and state_out may be the same memory.
inline void forward_chunk(const Forward run, const float* packed, const Segments segments,
                          int64_t begin, int64_t end) {
  segments.within(begin, end, [&](int64_t at, int64_t stop, int64_t kind) {
    const Weights w(packed + kind * WEIGHTS);
    for (; at + LANES <= stop; at += LANES) run.block<true>(w.of, at, LANES);
    if (at < stop) run.block<false>(w.of, at, (int)(stop - at));
  });
}

// The same backwards; d_packed, (kinds, WEIGHTS) in double precision, is added to.
inline void backward_chunk(const Backward run, const float* packed, double* d_packed,
                           const Segments segments, int64_t begin, int64_t end) {
  segments.within(begin, end, [&](int64_t at, int64_t stop, int64_t kind) {
    const float* plain = packed + kind * WEIGHTS;
    const Weights w(plain);
    V dw[WEIGHTS]{};
    for (; at + LANES <= stop; at += LANES) run.block<true>(w.of, plain, dw, at, LANES);
    if (at < stop) run.block<false>(w.of, plain, dw, at, (int)(stop - at));
    double* total = d_packed + kind * WEIGHTS;
    for (int k = 0; k < WEIGHTS; ++k)
      for (int lane = 0; lane < LANES; ++lane) total[k] += dw[k][lane];
  });
}

}  // namespace
