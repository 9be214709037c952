// The vector work of a conjugate gradient iteration, each group in one pass over memory.
// Threads share out chunks; sums are by chunk, so that they do not depend on who did which.
#include <cstdint>

namespace {

// As many as a register holds.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int BLOCK = 64 * LANES;
typedef float V
    __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

// A sum in double precision of blocks that are summed in single.
struct Sum {
  double total = 0.0;
  V lanes{};
  void add(V v) { lanes += v; }
  void add(float v) { total += v; }
  void settle() {
    for (int k = 0; k < LANES; ++k) total += lanes[k];
    lanes = V{};
  }
};

inline V load(const float* from) { return *(const V*)from; }
inline void store(float* to, V v) { *(V*)to = v; }

// Calls work(chunk, begin, end) for every chunk of [0, n).
template <typename Work>
inline void share(int64_t n, int64_t chunk, int64_t threads, Work work) {
#pragma omp parallel for schedule(static) num_threads((int)threads) if (threads > 1)
  for (int64_t begin = 0; begin < n; begin += chunk)
    work(begin / chunk, begin, begin + chunk < n ? begin + chunk : n);
}

// Calls each(at) for whole registers, rest(at) for what is left, and settle() every block.
template <typename Each, typename Rest, typename Settle>
inline void sweep(int64_t begin, int64_t end, Each each, Rest rest, Settle settle) {
  int64_t at = begin;
  while (at + LANES <= end) {
    const int64_t stop = at + BLOCK < end ? at + BLOCK : end;
    for (; at + LANES <= stop; at += LANES) each(at);
    settle();
  }
  for (; at < end; ++at) rest(at);
}

}  // namespace

// x += alpha p; r -= alpha ap; adds up <r, r> and <r, inverse r> of the new r, by chunk.
extern "C" void pcg_move(float* x, float* r, const float* p, const float* ap,
                         const float* inverse, const float* alpha, double* sums, int64_t n,
                         int64_t chunk, int64_t threads) {
  const float a = *alpha;
  share(n, chunk, threads, [=](int64_t part, int64_t begin, int64_t end) {
    Sum rr, ry;
    sweep(
        begin, end,
        [&](int64_t at) {
          store(x + at, load(x + at) + a * load(p + at));
          const V left = load(r + at) - a * load(ap + at);
          store(r + at, left);
          rr.add(left * left);
          ry.add(left * left * load(inverse + at));
        },
        [&](int64_t at) {
          x[at] += a * p[at];
          r[at] -= a * ap[at];
          rr.add(r[at] * r[at]);
          ry.add(r[at] * r[at] * inverse[at]);
        },
        [&] { rr.settle(), ry.settle(); });
    sums[2 * part] = rr.total;
    sums[2 * part + 1] = ry.total;
  });
}

// p = inverse r + beta p.
extern "C" void pcg_turn(float* p, const float* r, const float* inverse, const float* beta,
                         int64_t n, int64_t chunk, int64_t threads) {
  const float b = *beta;
  share(n, chunk, threads, [=](int64_t, int64_t begin, int64_t end) {
    sweep(
        begin, end,
        [&](int64_t at) {
          store(p + at, load(inverse + at) * load(r + at) + b * load(p + at));
        },
        [&](int64_t at) { p[at] = inverse[at] * r[at] + b * p[at]; }, [] {});
  });
}

// p = inverse r; adds up <r, r> and <r, p>, by chunk.
extern "C" void pcg_begin(float* p, const float* r, const float* inverse, double* sums,
                          int64_t n, int64_t chunk, int64_t threads) {
  share(n, chunk, threads, [=](int64_t part, int64_t begin, int64_t end) {
    Sum rr, ry;
    sweep(
        begin, end,
        [&](int64_t at) {
          const V left = load(r + at), y = left * load(inverse + at);
          store(p + at, y);
          rr.add(left * left);
          ry.add(left * y);
        },
        [&](int64_t at) {
          p[at] = inverse[at] * r[at];
          rr.add(r[at] * r[at]);
          ry.add(r[at] * p[at]);
        },
        [&] { rr.settle(), ry.settle(); });
    sums[2 * part] = rr.total;
    sums[2 * part + 1] = ry.total;
  });
}
