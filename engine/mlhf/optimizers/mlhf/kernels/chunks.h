// What all operators share: torch's tensors as arrays, and chunks that its threads take.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Elements that one thread does at a time: fixed, so that sums do not depend on the number of
// threads, and few, so that these get equal shares.
constexpr int64_t CHUNK = 1 << 12;
constexpr int64_t BACKWARD_CHUNK = 1 << 14;  // each has sums of its own over all weights
constexpr int64_t SMALL = 1 << 15;  // below this, waking other threads costs more than it gains

int64_t chunks_of(int64_t n, int64_t chunk) { return (n + chunk - 1) / chunk; }

// Calls work(index, begin, end) for every chunk of [0, n), by torch's threads.
template <typename Work>
void for_each_chunk(int64_t n, int64_t chunk, const Work& work) {
  const int64_t count = chunks_of(n, chunk);
  torch::stable::parallel_for(0, count, n <= SMALL ? count : 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k)
      work(k, k * chunk, (k + 1) * chunk < n ? (k + 1) * chunk : n);
  });
}

void check(const Tensor& t, const char* name, int64_t numel) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, name, " must be float32");
  STD_TORCH_CHECK(t.is_contiguous(), name, " must be contiguous");
  STD_TORCH_CHECK(t.numel() == numel, name, " must have ", numel, " elements, has ", t.numel());
}

Tensor checked_vector(const Tensor& t, const char* name, int64_t n) {
  Tensor dense = t.is_contiguous() ? t : torch::stable::contiguous(t);
  check(dense, name, n);
  return dense;
}

const float* read(const Tensor& t) { return t.const_data_ptr<float>(); }
float* write(const Tensor& t) { return t.mutable_data_ptr<float>(); }

}  // namespace
