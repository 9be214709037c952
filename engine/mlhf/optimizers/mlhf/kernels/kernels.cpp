// The operators' CPU kernels, registered with torch; operators.py has their schemas.
//
// By torch's stable ABI: one library serves every torch from 2.11 on, whatever its Python, and
// these headers compile in 2 s, not in the 10 to 50 of torch/library.h and torch/extension.h.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "chunks.h"
#include "coordinate.h"
#include "kronecker_operators.h"
#include "vectors.h"

namespace {

Segments checked_segments(const std::vector<int64_t>& edges, const Tensor& packed, int64_t n) {
  STD_TORCH_CHECK(packed.dim() == 2, "packed must be (kinds, weights)");
  const int64_t kinds = packed.size(0);
  check(packed, "packed", kinds * WEIGHTS);
  STD_TORCH_CHECK(edges.size() % 3 == 0, "segments must be (start, end, kind) each");
  for (size_t s = 0; s < edges.size(); s += 3)
    STD_TORCH_CHECK(0 <= edges[s] && edges[s] <= edges[s + 1] && edges[s + 1] <= n &&
                        0 <= edges[s + 2] && edges[s + 2] < kinds,
                    "segment ", s / 3, " does not fit ", n, " coordinates of ", kinds, " kinds");
  return {edges.data(), (int64_t)edges.size() / 3};
}

void run_forward(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& state,
                 const Tensor& packed, const std::vector<int64_t>& segments, double offset,
                 const Tensor& state_out, const Tensor& out) {
  const int64_t n = a.numel();
  const Tensor in[] = {checked_vector(a, "a", n), checked_vector(b, "b", n),
                       checked_vector(c, "c", n)};
  check(state, "state", STATE * n);
  const Segments runs = checked_segments(segments, packed, n);
  const Forward forward{{read(in[0]), read(in[1]), read(in[2])}, read(state), write(state_out),
                        write(out), (std::ptrdiff_t)n, (float)offset};
  const float* weights = read(packed);
  for_each_chunk(n, CHUNK, [&](int64_t, int64_t begin, int64_t end) {
    forward_chunk(forward, weights, runs, begin, end);
  });
}

Tensor coordinate_network_step(const Tensor& a, const Tensor& b, const Tensor& c, Tensor state,
                               const Tensor& packed, std::vector<int64_t> segments,
                               double offset) {
  Tensor out = torch::stable::empty_like(a);
  if (a.numel() && std::isnan(read(checked_vector(a, "a", a.numel()))[0])) {
    std::fill_n(write(out), out.numel(), std::numeric_limits<float>::quiet_NaN());
    return out;
  }
  run_forward(a, b, c, state, packed, segments, offset, state, out);
  return out;
}

std::tuple<Tensor, Tensor> coordinate_network(const Tensor& a, const Tensor& b, const Tensor& c,
                                              const Tensor& state, const Tensor& packed,
                                              std::vector<int64_t> segments, double offset) {
  Tensor out = torch::stable::empty_like(a), state_out = torch::stable::empty_like(state);
  run_forward(a, b, c, state, packed, segments, offset, state_out, out);
  return {out, state_out};
}

// Gradients of a, b, c and state, and of packed by chunk, in double precision.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> coordinate_network_backward(
    const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& state, const Tensor& packed,
    std::vector<int64_t> segments, const Tensor& d_out, std::optional<Tensor> d_state_out) {
  const int64_t n = a.numel();
  const Tensor in[] = {checked_vector(a, "a", n), checked_vector(b, "b", n),
                       checked_vector(c, "c", n)};
  const Tensor d = checked_vector(d_out, "d_out", n);
  check(state, "state", STATE * n);
  std::optional<Tensor> d_new;
  if (d_state_out) d_new = checked_vector(*d_state_out, "d_state_out", STATE * n);
  const Segments runs = checked_segments(segments, packed, n);

  Tensor d_a = torch::stable::empty_like(d), d_b = torch::stable::empty_like(d);
  Tensor d_c = torch::stable::empty_like(d), d_state = torch::stable::empty_like(state);
  Tensor d_packed = torch::stable::new_zeros(
      packed, {chunks_of(n, BACKWARD_CHUNK), packed.size(0), packed.size(1)}, ScalarType::Double);

  const Backward backward{{read(in[0]), read(in[1]), read(in[2])},
                          read(state),
                          read(d),
                          d_new ? read(*d_new) : nullptr,
                          {write(d_a), write(d_b), write(d_c)},
                          write(d_state),
                          (std::ptrdiff_t)n};
  const float* weights = read(packed);
  double* sums = d_packed.mutable_data_ptr<double>();
  const int64_t width = packed.numel();
  for_each_chunk(n, BACKWARD_CHUNK, [&](int64_t k, int64_t begin, int64_t end) {
    backward_chunk(backward, weights, sums + k * width, runs, begin, end);
  });
  return {d_a, d_b, d_c, d_state, d_packed};
}

// Two sums for every chunk of a vector.
Tensor sums_like(const Tensor& p) {
  return torch::stable::new_empty(p, {chunks_of(p.numel(), CHUNK), 2}, ScalarType::Double);
}

Tensor pcg_begin(Tensor p, const Tensor& r, const Tensor& inverse) {
  const int64_t n = p.numel();
  check(p, "p", n), check(r, "r", n), check(inverse, "inverse", n);
  Tensor sums = sums_like(p);
  double* to = sums.mutable_data_ptr<double>();
  float* p_at = write(p);
  const float *r_at = read(r), *inverse_at = read(inverse);
  for_each_chunk(n, CHUNK, [=](int64_t k, int64_t begin, int64_t end) {
    pcg_begin_chunk(p_at, r_at, inverse_at, to + 2 * k, begin, end);
  });
  return sums;
}

Tensor pcg_move(Tensor x, Tensor r, const Tensor& p, const Tensor& ap, const Tensor& inverse,
                const Tensor& alpha) {
  const int64_t n = p.numel();
  check(x, "x", n), check(r, "r", n), check(p, "p", n), check(ap, "ap", n);
  check(inverse, "inverse", n), check(alpha, "alpha", 1);
  Tensor sums = sums_like(p);
  double* to = sums.mutable_data_ptr<double>();
  float *x_at = write(x), *r_at = write(r);
  const float *p_at = read(p), *ap_at = read(ap), *inverse_at = read(inverse);
  const float a = *read(alpha);
  for_each_chunk(n, CHUNK, [=](int64_t k, int64_t begin, int64_t end) {
    pcg_move_chunk(x_at, r_at, p_at, ap_at, inverse_at, a, to + 2 * k, begin, end);
  });
  return sums;
}

void pcg_direction(Tensor p, const Tensor& r, const Tensor& inverse, const Tensor& beta) {
  const int64_t n = p.numel();
  check(p, "p", n), check(r, "r", n), check(inverse, "inverse", n), check(beta, "beta", 1);
  float* p_at = write(p);
  const float *r_at = read(r), *inverse_at = read(inverse);
  const float b = *read(beta);
  for_each_chunk(n, CHUNK, [=](int64_t, int64_t begin, int64_t end) {
    pcg_direction_chunk(p_at, r_at, inverse_at, b, begin, end);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mlhf, CPU, m) {
  m.impl("coordinate_network_step", TORCH_BOX(&coordinate_network_step));
  m.impl("coordinate_network", TORCH_BOX(&coordinate_network));
  m.impl("coordinate_network_backward", TORCH_BOX(&coordinate_network_backward));
  m.impl("pcg_begin", TORCH_BOX(&pcg_begin));
  m.impl("pcg_move", TORCH_BOX(&pcg_move));
  m.impl("pcg_direction", TORCH_BOX(&pcg_direction));
  m.impl("kronecker_damp", TORCH_BOX(&kronecker_damp));
  m.impl("kronecker_direction", TORCH_BOX(&kronecker_direction));
  m.impl("kronecker_products", TORCH_BOX(&kronecker_products));
  m.impl("kronecker_combine", TORCH_BOX(&kronecker_combine));
  m.impl("kronecker_advance", TORCH_BOX(&kronecker_advance));
}
