// A vector register of floats.
#pragma once

#ifdef __AVX__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

// As many as a register holds: wider vectors would be taken apart, in memory, at every step.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float V
    __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

}  // namespace
