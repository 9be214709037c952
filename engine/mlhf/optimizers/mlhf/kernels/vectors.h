// The vector work of a conjugate gradient iteration, each group in one pass over memory.
#pragma once

#include <cstdint>

#include "lanes.h"

namespace {

constexpr int BLOCK = 64 * LANES;

// A sum in double precision of blocks that are summed in single.
struct Sum {
  double total = 0.0;
  V lanes{};
  void add(V v) { lanes += v; }
  void add(float v) { total += v; }
  void end_block() {
    for (int k = 0; k < LANES; ++k) total += lanes[k];
    lanes = V{};
  }
};

inline V load(const float* from) { return *(const V*)from; }
inline void store(float* to, V v) { *(V*)to = v; }

// Calls each(at) for whole registers, rest(at) for what is left, and end_block() every block.
template <typename Each, typename Rest, typename EndBlock>
inline void sweep(int64_t begin, int64_t end, Each each, Rest rest, EndBlock end_block) {
  int64_t at = begin;
  while (at + LANES <= end) {
    const int64_t stop = at + BLOCK < end ? at + BLOCK : end;
    for (; at + LANES <= stop; at += LANES) each(at);
    end_block();
  }
  for (; at < end; ++at) rest(at);
}

// p = inverse r; sums = <r, r>, <r, p> of the elements [begin, end).
inline void pcg_begin_chunk(float* p, const float* r, const float* inverse, double* sums,
                            int64_t begin, int64_t end) {
  Sum rr, ry;
  sweep(
      begin, end,
      [&](int64_t at) {
        const V residual = load(r + at), y = residual * load(inverse + at);
        store(p + at, y);
        rr.add(residual * residual);
        ry.add(residual * y);
      },
      [&](int64_t at) {
        p[at] = inverse[at] * r[at];
        rr.add(r[at] * r[at]);
        ry.add(r[at] * p[at]);
      },
      [&] { rr.end_block(), ry.end_block(); });
  sums[0] = rr.total;
  sums[1] = ry.total;
}

// x += a p; r -= a ap; sums = <r, r>, <r, inverse r> of the new r.
inline void pcg_move_chunk(float* x, float* r, const float* p, const float* ap,
                           const float* inverse, float a, double* sums, int64_t begin,
                           int64_t end) {
  Sum rr, ry;
  sweep(
      begin, end,
      [&](int64_t at) {
        store(x + at, load(x + at) + a * load(p + at));
        const V residual = load(r + at) - a * load(ap + at);
        store(r + at, residual);
        rr.add(residual * residual);
        ry.add(residual * residual * load(inverse + at));
      },
      [&](int64_t at) {
        x[at] += a * p[at];
        r[at] -= a * ap[at];
        rr.add(r[at] * r[at]);
        ry.add(r[at] * r[at] * inverse[at]);
      },
      [&] { rr.end_block(), ry.end_block(); });
  sums[0] = rr.total;
  sums[1] = ry.total;
}

// p = inverse r + b p.
inline void pcg_direction_chunk(float* p, const float* r, const float* inverse, float b,
                                int64_t begin, int64_t end) {
  sweep(
      begin, end,
      [&](int64_t at) { store(p + at, load(inverse + at) * load(r + at) + b * load(p + at)); },
      [&](int64_t at) { p[at] = inverse[at] * r[at] + b * p[at]; }, [] {});
}

}  // namespace
