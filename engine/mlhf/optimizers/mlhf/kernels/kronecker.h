// The vector work of a step of the Kronecker form, each group in one pass over memory.
#pragma once

#include <cmath>
#include <cstdint>

#include "lanes.h"
#include "vectors.h"

namespace {

inline V root(V v) {
  V out;
  for (int k = 0; k < LANES; ++k) out[k] = std::sqrt(v[k]);
  return out;
}

// What a step's damping is made of; moment may be null, for zeros.
struct Damping {
  const float *b, *moment, *diagonal;
  float *moment_out, *damping, *damped, *direction;
  float kept, added, shift, on_diagonal, decay;
};

// v = kept v + added b^2; s = factor (sqrt(v) + shift) + decay; t = s + on_diagonal D; p = b / t;
// the sums <p, b> and <b, b> go on.
inline void damp_run(const Damping& at, float factor, Sum& pb, Sum& bb, int64_t begin,
                     int64_t end) {
  sweep(
      begin, end,
      [&](int64_t k) {
        const V b = load(at.b + k), square = b * b;
        V v = at.added * square;
        if (at.moment) v += at.kept * load(at.moment + k);
        const V s = factor * (root(v) + at.shift) + at.decay;
        const V t = s + at.on_diagonal * load(at.diagonal + k), p = b / t;
        store(at.moment_out + k, v);
        store(at.damping + k, s);
        store(at.damped + k, t);
        store(at.direction + k, p);
        pb.add(p * b);
        bb.add(square);
      },
      [&](int64_t k) {
        const float b = at.b[k], square = b * b;
        float v = at.added * square;
        if (at.moment) v += at.kept * at.moment[k];
        const float s = factor * (std::sqrt(v) + at.shift) + at.decay;
        const float t = s + at.on_diagonal * at.diagonal[k], p = b / t;
        at.moment_out[k] = v, at.damping[k] = s, at.damped[k] = t, at.direction[k] = p;
        pb.add(p * b);
        bb.add(square);
      },
      [&] { pb.end_block(), bb.end_block(); });
}

// sums = <p, s q>, <p, d q> of the elements [begin, end).
inline void weighted_chunk(const float* p, const float* q, const float* s, const float* d,
                           double* sums, int64_t begin, int64_t end) {
  Sum by_s, by_d;
  sweep(
      begin, end,
      [&](int64_t k) {
        const V product = load(p + k) * load(q + k);
        by_s.add(product * load(s + k));
        by_d.add(product * load(d + k));
      },
      [&](int64_t k) {
        const float product = p[k] * q[k];
        by_s.add(product * s[k]);
        by_d.add(product * d[k]);
      },
      [&] { by_s.end_block(), by_d.end_block(); });
  sums[0] = by_s.total;
  sums[1] = by_d.total;
}

// <p, q> of the elements [begin, end).
inline double dot_chunk(const float* p, const float* q, int64_t begin, int64_t end) {
  Sum sum;
  sweep(
      begin, end, [&](int64_t k) { sum.add(load(p + k) * load(q + k)); },
      [&](int64_t k) { sum.add(p[k] * q[k]); }, [&] { sum.end_block(); });
  return sum.total;
}

// out = the sum of c[i] vectors[i], over the elements [begin, end).
inline void combine_chunk(const float* const* vectors, const float* c, int64_t count, float* out,
                          int64_t begin, int64_t end) {
  sweep(
      begin, end,
      [&](int64_t k) {
        V sum = c[0] * load(vectors[0] + k);
        for (int64_t i = 1; i < count; ++i) sum += c[i] * load(vectors[i] + k);
        store(out + k, sum);
      },
      [&](int64_t k) {
        float sum = c[0] * vectors[0][k];
        for (int64_t i = 1; i < count; ++i) sum += c[i] * vectors[i][k];
        out[k] = sum;
      },
      [] {});
}

// theta += factor step; mean += weight (theta - mean), which is exactly theta at weight 1.
inline void advance_chunk(float* theta, float* mean, const float* step, float factor, float weight,
                          int64_t begin, int64_t end) {
  const bool near = weight < 0.5f;
  const float rest = 1.0f - weight;
  sweep(
      begin, end,
      [&](int64_t k) {
        const V moved = load(theta + k) + factor * load(step + k), old = load(mean + k);
        const V apart = moved - old;
        store(theta + k, moved);
        store(mean + k, near ? old + weight * apart : moved - rest * apart);
      },
      [&](int64_t k) {
        const float moved = theta[k] + factor * step[k], apart = moved - mean[k];
        theta[k] = moved;
        mean[k] = near ? mean[k] + weight * apart : moved - rest * apart;
      },
      [] {});
}

}  // namespace
