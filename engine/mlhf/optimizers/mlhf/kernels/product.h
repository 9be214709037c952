// Products of small matrices, which libraries take longer to begin than to compute.
#pragma once

#include <cstdint>

#include "lanes.h"
#include "vectors.h"

namespace {

// Columns [at, at + COUNT registers) of ROWS rows of C = op(A) B; op(A) has k columns, B n.
template <int ROWS, int COUNT, bool TRANSPOSED>
inline void product_tile(const float* a, int64_t stride, const float* b, int64_t k, int64_t n,
                         float* c, int64_t at) {
  V sums[ROWS][COUNT] = {};
  for (int64_t p = 0; p < k; ++p) {
    V row[COUNT];
    for (int j = 0; j < COUNT; ++j) row[j] = load(b + p * n + at + j * LANES);
    for (int r = 0; r < ROWS; ++r) {
      const float factor = TRANSPOSED ? a[p * stride + r] : a[r * stride + p];
      for (int j = 0; j < COUNT; ++j) sums[r][j] += factor * row[j];
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int j = 0; j < COUNT; ++j) store(c + r * n + at + j * LANES, sums[r][j]);
}

template <int ROWS, bool TRANSPOSED>
inline void product_rows(const float* a, int64_t stride, const float* b, int64_t k, int64_t n,
                         float* c) {
  if (n < LANES) {
    for (int r = 0; r < ROWS; ++r)
      for (int64_t j = 0; j < n; ++j) {
        float sum = 0.0f;
        for (int64_t p = 0; p < k; ++p)
          sum += (TRANSPOSED ? a[p * stride + r] : a[r * stride + p]) * b[p * n + j];
        c[r * n + j] = sum;
      }
    return;
  }
  int64_t at = 0;
  for (; at + 2 * LANES <= n; at += 2 * LANES)
    product_tile<ROWS, 2, TRANSPOSED>(a, stride, b, k, n, c, at);
  // The last register overlaps the one before, in place of a rest of single columns.
  for (; at < n; at += LANES)
    product_tile<ROWS, 1, TRANSPOSED>(a, stride, b, k, n, c, at + LANES <= n ? at : n - LANES);
}

// C = A B, or A' B; A' and A are (m, k), B is (k, n), all dense and row by row.
template <bool TRANSPOSED>
inline void product(const float* a, const float* b, float* c, int64_t m, int64_t k, int64_t n) {
  const int64_t stride = TRANSPOSED ? m : k, next = TRANSPOSED ? 1 : k;
  int64_t i = 0;
  for (; i + 4 <= m; i += 4)
    product_rows<4, TRANSPOSED>(a + i * next, stride, b, k, n, c + i * n);
  for (; i < m; ++i) product_rows<1, TRANSPOSED>(a + i * next, stride, b, k, n, c + i * n);
}

}  // namespace
