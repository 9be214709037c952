// The operators of a step of the Kronecker form.
#pragma once

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "chunks.h"
#include "kronecker.h"
#include "product.h"

namespace {

// What a step's damping takes beside vectors: kept, added, epsilon, correction, on_diagonal, decay.
constexpr size_t NUMBERS = 6;

// Fills the vectors of at; returns <p, b>, <b, b>.
Tensor damp(const Damping& at, const Tensor& like, const std::vector<int64_t>& sizes,
            const std::vector<double>& factors, double correction) {
  const int64_t n = like.numel();
  STD_TORCH_CHECK(sizes.size() == factors.size(), "one factor for each segment");
  int64_t total = 0;
  for (int64_t size : sizes) {
    STD_TORCH_CHECK(size >= 0, "sizes must not be negative");
    total += size;
  }
  STD_TORCH_CHECK(total == n, "segments have ", total, " elements, vectors ", n);
  std::vector<double> sums(2 * chunks_of(n, CHUNK));
  for_each_chunk(n, CHUNK, [&](int64_t k, int64_t begin, int64_t end) {
    Sum pb, bb;
    int64_t from = 0;
    for (size_t s = 0; s < sizes.size() && from < end; from += sizes[s++]) {
      const int64_t to = from + sizes[s];
      if (to > begin)
        damp_run(at, (float)(correction * factors[s]), pb, bb, std::max(from, begin),
                 std::min(to, end));
    }
    sums[2 * k] = pb.total, sums[2 * k + 1] = bb.total;
  });
  Tensor products = torch::stable::new_empty(like, {2}, ScalarType::Double);
  double* to = products.mutable_data_ptr<double>();
  to[0] = to[1] = 0.0;
  for (size_t k = 0; k < sums.size(); ++k) to[k % 2] += sums[k];
  return products;
}

// The second moment, the damping, that plus D, the preconditioned gradient p, and <p, b>, <b, b>.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kronecker_damp(
    const Tensor& b, std::optional<Tensor> moment, const Tensor& diagonal, const Tensor& scale,
    std::vector<int64_t> sizes, std::vector<double> factors, std::vector<double> numbers) {
  const int64_t n = b.numel();
  check(b, "b", n), check(diagonal, "diagonal", n), check(scale, "scale", 1);
  if (moment) check(*moment, "moment", n);
  STD_TORCH_CHECK(numbers.size() == NUMBERS, "numbers must be ", NUMBERS);
  Tensor moment_out = torch::stable::empty_like(b), damping = torch::stable::empty_like(b);
  Tensor damped = torch::stable::empty_like(b), direction = torch::stable::empty_like(b);
  const double correction = numbers[3];
  const Damping at{read(b),
                   moment ? read(*moment) : nullptr,
                   read(diagonal),
                   write(moment_out),
                   write(damping),
                   write(damped),
                   write(direction),
                   (float)numbers[0],
                   (float)numbers[1],
                   (float)(numbers[2] / correction * *read(scale)),
                   (float)numbers[4],
                   (float)numbers[5]};
  Tensor products = damp(at, b, sizes, factors, correction);
  return {moment_out, damping, damped, direction, products};
}

// A matrix of parameters, the last column perhaps a bias, and the bases of its sides.
struct KroneckerBlock {
  int64_t out, inner;
  bool has_bias;
  const float *left, *right, *right_transposed;  // null where a side is not rotated
  int64_t weight_at, bias_at;  // in the flattened parameters
  int64_t size() const { return out * inner; }
};
constexpr size_t LAYOUT = 7;  // integers a block: out, inner, bias, left, right, and both places

std::vector<KroneckerBlock> checked_blocks(const std::vector<int64_t>& layout,
                                           const std::vector<Tensor>& bases, int64_t n) {
  STD_TORCH_CHECK(layout.size() % LAYOUT == 0, "layout must have ", LAYOUT, " numbers a block");
  std::vector<KroneckerBlock> blocks;
  size_t next = 0;
  const auto basis = [&](int64_t size) {
    STD_TORCH_CHECK(next < bases.size(), "a basis is missing");
    check(bases[next], "a basis", size * size);
    return read(bases[next++]);
  };
  int64_t total = 0;
  for (size_t i = 0; i < layout.size(); i += LAYOUT) {
    const int64_t* of = layout.data() + i;
    KroneckerBlock block{of[0], of[1], of[2] != 0, nullptr, nullptr, nullptr, of[5], of[6]};
    STD_TORCH_CHECK(block.out >= 0 && block.inner >= block.has_bias, "a block's shape is wrong");
    if (of[3]) block.left = basis(block.out);
    if (of[4]) block.right = basis(block.inner), block.right_transposed = basis(block.inner);
    const int64_t weights = block.out * (block.inner - block.has_bias);
    STD_TORCH_CHECK(0 <= block.weight_at && block.weight_at + weights <= n &&
                        (!block.has_bias || (0 <= block.bias_at && block.bias_at + block.out <= n)),
                    "a block does not fit ", n, " parameters");
    total += block.size();
    blocks.push_back(block);
  }
  STD_TORCH_CHECK(total == n && next == bases.size(), "blocks have ", total, " elements of ", n);
  return blocks;
}

// U_L' M U_R of each block's gradients, one block after the other.
void rotate_blocks(const std::vector<KroneckerBlock>& blocks, const std::vector<Tensor>& gradients,
                   float* to) {
  std::vector<float> packed, turned;
  size_t next = 0;
  for (const KroneckerBlock& block : blocks) {
    const int64_t width = block.inner - block.has_bias, weights = block.out * width;
    const Tensor weight = checked_vector(gradients[next++], "a gradient", weights);
    const float* matrix = read(weight);
    if (block.has_bias) {
      const Tensor bias = checked_vector(gradients[next++], "a gradient", block.out);
      packed.resize(block.size());
      for (int64_t i = 0; i < block.out; ++i) {
        std::copy_n(read(weight) + i * width, width, packed.data() + i * block.inner);
        packed[i * block.inner + width] = read(bias)[i];
      }
      matrix = packed.data();
    }
    if (block.right) {
      turned.resize(block.size());
      float* out = block.left ? turned.data() : to;
      product<false>(matrix, block.right, out, block.out, block.inner, block.inner);
      matrix = out;
    }
    if (block.left)
      product<true>(block.left, matrix, to, block.out, block.out, block.inner);
    else if (!block.right)
      std::copy_n(matrix, block.size(), to);
    to += block.size();
  }
}

// U_L M U_R' of each block, as the flattened parameters have it.
void rotate_blocks_back(const std::vector<KroneckerBlock>& blocks, const float* from, float* to) {
  std::vector<float> turned, back;
  for (const KroneckerBlock& block : blocks) {
    const float* matrix = from;
    if (block.right) {
      turned.resize(block.size());
      product<false>(matrix, block.right_transposed, turned.data(), block.out, block.inner,
                     block.inner);
      matrix = turned.data();
    }
    if (block.left) {
      back.resize(block.size());
      product<false>(block.left, matrix, back.data(), block.out, block.out, block.inner);
      matrix = back.data();
    }
    const int64_t width = block.inner - block.has_bias;
    for (int64_t i = 0; i < block.out; ++i) {
      std::copy_n(matrix + i * block.inner, width, to + block.weight_at + i * width);
      if (block.has_bias) to[block.bias_at + i] = matrix[i * block.inner + width];
    }
    from += block.size();
  }
}

// From gradients to the preconditioned one: b, what kronecker_damp returns, and p as the
// flattened parameters have it, before the products.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> kronecker_direction(
    std::vector<Tensor> gradients, std::vector<Tensor> bases, std::vector<int64_t> layout,
    std::optional<Tensor> moment, const Tensor& diagonal, const Tensor& scale,
    std::vector<double> factors, std::vector<double> numbers) {
  const std::vector<KroneckerBlock> blocks = checked_blocks(layout, bases, diagonal.numel());
  size_t count = 0;
  std::vector<int64_t> sizes;
  for (const KroneckerBlock& block : blocks) {
    count += 1 + block.has_bias;
    sizes.push_back(block.size());
  }
  STD_TORCH_CHECK(gradients.size() == count, "blocks have ", count, " gradients");
  Tensor b = torch::stable::empty_like(diagonal), flat = torch::stable::empty_like(diagonal);
  rotate_blocks(blocks, gradients, write(b));
  auto [moment_out, damping, damped, direction, products] =
      kronecker_damp(b, moment, diagonal, scale, sizes, factors, numbers);
  rotate_blocks_back(blocks, read(direction), write(flat));
  return {b, moment_out, damping, damped, direction, flat, products};
}

// Of vectors q: <q_i, s q_j>, <q_i, d q_j>, <q_i, b>, side by side: (m, 2m + 1).
Tensor kronecker_products(std::vector<Tensor> vectors, const Tensor& s, const Tensor& d,
                          const Tensor& b) {
  const int64_t n = b.numel(), m = vectors.size(), width = 2 * m + 1;
  STD_TORCH_CHECK(m > 0, "no vector was given");
  check(s, "s", n), check(d, "d", n), check(b, "b", n);
  std::vector<const float*> q;
  for (const Tensor& vector : vectors) {
    check(vector, "a vector", n);
    q.push_back(read(vector));
  }
  const float *s_at = read(s), *d_at = read(d), *b_at = read(b);
  std::vector<double> sums(chunks_of(n, CHUNK) * m * width);
  for_each_chunk(n, CHUNK, [&](int64_t k, int64_t begin, int64_t end) {
    double* row = sums.data() + k * m * width;
    for (int64_t i = 0; i < m; ++i, row += width) {
      for (int64_t j = i; j < m; ++j) {
        double both[2];
        weighted_chunk(q[i], q[j], s_at, d_at, both, begin, end);
        row[j] = both[0], row[m + j] = both[1];
      }
      row[2 * m] = dot_chunk(q[i], b_at, begin, end);
    }
  });
  Tensor out = torch::stable::new_empty(b, {m, width}, ScalarType::Double);
  double* to = out.mutable_data_ptr<double>();
  std::fill_n(to, m * width, 0.0);
  for (size_t k = 0; k < sums.size(); ++k) to[k % (m * width)] += sums[k];
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < i; ++j) {
      to[i * width + j] = to[j * width + i];
      to[i * width + m + j] = to[j * width + m + i];
    }
  return out;
}

Tensor combined(const std::vector<Tensor>& vectors, const std::vector<float>& c) {
  STD_TORCH_CHECK(!vectors.empty() && vectors.size() == c.size(), "one factor for each vector");
  const int64_t n = vectors[0].numel(), count = vectors.size();
  std::vector<const float*> from;
  for (const Tensor& vector : vectors) {
    check(vector, "a vector", n);
    from.push_back(read(vector));
  }
  Tensor out = torch::stable::empty_like(vectors[0]);
  float* to = write(out);
  for_each_chunk(n, CHUNK, [&](int64_t, int64_t begin, int64_t end) {
    combine_chunk(from.data(), c.data(), count, to, begin, end);
  });
  return out;
}

// The linear combinations of two lists of vectors, by the same factors.
std::tuple<Tensor, Tensor> kronecker_combine(std::vector<Tensor> first, std::vector<Tensor> second,
                                             std::vector<double> factors) {
  const std::vector<float> c(factors.begin(), factors.end());
  return {combined(first, c), combined(second, c)};
}

// The two combinations; of the second, a step, factor times it is added to the parameters, which
// are then included in their means.
std::tuple<Tensor, Tensor> kronecker_advance(std::vector<Tensor> first, std::vector<Tensor> second,
                                             std::vector<double> factors,
                                             std::vector<Tensor> parameters,
                                             std::vector<Tensor> means, double factor,
                                             double weight) {
  auto [moved, step] = kronecker_combine(first, second, factors);
  STD_TORCH_CHECK(parameters.size() == means.size(), "one mean for each parameter");
  int64_t total = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const int64_t n = parameters[i].numel();
    check(parameters[i], "a parameter", n), check(means[i], "a mean", n);
    total += n;
  }
  STD_TORCH_CHECK(total == step.numel(), "parameters have ", total, " elements, the step ",
                  step.numel());
  const float* from = read(step);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const int64_t n = parameters[i].numel();
    float *theta = write(parameters[i]), *mean = write(means[i]);
    for_each_chunk(n, CHUNK, [=](int64_t, int64_t begin, int64_t end) {
      advance_chunk(theta, mean, from, (float)factor, (float)weight, begin, end);
    });
    from += n;
  }
  return {moved, step};
}

}  // namespace
