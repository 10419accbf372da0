// Runs a list of native calls, and draws the random numbers of torch's generator by vectors.
//
// All arguments are pointers or 64-bit integers, which the ABIs of 64-bit processors pass alike.

#include <cstdint>
#include <cstring>
#include <exception>
#include <utility>
#if defined(__AVX__)
#include <immintrin.h>
#endif

// Inductor's options switch off what makes vectors of the loops below.
#pragma GCC optimize("tree-loop-vectorize", "no-math-errno")

typedef int64_t word;
constexpr word LONGEST = 256;  // arguments of a call
constexpr int N = 624, M = 397;  // of the Mersenne twister

template <size_t... I>
static void call(word function, const word* a, std::index_sequence<I...>) {
  reinterpret_cast<void (*)(decltype((void)I, word())...)>(function)(a[I]...);
}
template <size_t C>
static void calls(word function, const word* a) { call(function, a, std::make_index_sequence<C>()); }
typedef void (*Caller)(word, const word*);
template <size_t... C>
static const Caller* callers(std::index_sequence<C...>) {
  static const Caller all[] = {&calls<C>...};
  return all;
}

static char said[512];  // by the last call that has failed
extern "C" const char* message() { return said; }

// Entries are triples: function, first argument, number of arguments. After each step the numbers
// of `moves`, pairs of an argument and bytes, are added to the arguments. Returns 1 if a call fails.
extern "C" word kernel(const word* entries, word first, word last, word* arguments,
                       const word* moves, word moved, word steps) {
  const Caller* by_count = callers(std::make_index_sequence<LONGEST + 1>());
  try {
    for (word step = 0; step < steps; step++) {
      for (word i = first; i < last; i++) {
        const word* entry = entries + 3 * i;
        by_count[entry[2]](entry[0], arguments + entry[1]);
      }
      for (word i = 0; i < moved; i++) arguments[moves[2 * i]] += moves[2 * i + 1];
    }
  } catch (const std::exception& error) {  // such as an index out of bounds
    std::strncpy(said, error.what(), sizeof(said) - 1);
    return 1;
  }
  return 0;
}

// The state of torch's generator as torch.get_rng_state() gives it.
struct Torch {
  uint64_t seed; int32_t left, seeded; uint64_t next, state[N];
};
// The same with words that vectors can hold.
struct Random { int32_t left, next; uint32_t state[N]; };

extern "C" word read_state(const Torch* from, Random* to) {
  to->left = from->left, to->next = from->next;
  for (int i = 0; i < N; i++) to->state[i] = from->state[i];
  return 0;
}

extern "C" word write_state(const Random* from, Torch* to) {
  to->left = from->left, to->next = from->next;
  for (int i = 0; i < N; i++) to->state[i] = from->state[i];
  return 0;
}

static inline uint32_t mixed(uint32_t u, uint32_t v) {
  return (((u & 0x80000000u) | (v & 0x7fffffffu)) >> 1) ^ (-(v & 1u) & 0x9908b0dfu);
}

static void twist(uint32_t* s) {
  for (int i = 0; i < N - M; i++) s[i] = s[i + M] ^ mixed(s[i], s[i + 1]);
  for (int i = N - M; i < N - 1; i++) s[i] = s[i + M - N] ^ mixed(s[i], s[i + 1]);
  s[N - 1] = s[M - 1] ^ mixed(s[N - 1], s[0]);
}

// n numbers of [0, 1), those of torch.rand in float32.
extern "C" word uniform(Random* random, float* to, word n) {
  while (n > 0) {
    if (random->left <= 1) twist(random->state), random->left = N + 1, random->next = 0;
    word some = random->left - 1 < n ? random->left - 1 : n;
    const uint32_t* from = random->state + random->next;
    for (word i = 0; i < some; i++) {
      uint32_t y = from[i];
      y ^= y >> 11, y ^= (y << 7) & 0x9d2c5680u, y ^= (y << 15) & 0xefc60000u, y ^= y >> 18;
      to[i] = (float)(int32_t)(y & 0xffffffu) * 0x1p-24f;
    }
    random->left -= some, random->next += some;
    to += some, n -= some;
  }
  return 0;
}

// Eight numbers at a time, since torch's blocks of 16 normal numbers are eight radii and angles.
typedef float F8 __attribute__((vector_size(32), aligned(4)));
typedef int32_t I8 __attribute__((vector_size(32), aligned(4)));

// log x for x in [2^-24, 1], to two units in the last place, by Cephes' polynomial.
static inline F8 log_of(F8 x) {
  I8 bits = (I8)x, e = (bits >> 23) - 126;
  F8 m = (F8)((bits & 0x7fffff) | 0x3f000000);
  I8 low = m < 0.70710678f;  // -1 where it is
  F8 k = __builtin_convertvector(e + low, F8), f = (low ? m + m : m) - 1.0f, z = f * f;
  F8 p = f * 7.0376836292e-2f;
  p = p - 1.1514610310e-1f, p = p * f + 1.1676998740e-1f, p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f, p = p * f - 1.6668057665e-1f, p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f, p = p * f + 3.3333331174e-1f;
  return f + (p * f * z - 2.12194440e-4f * k - 0.5f * z) + 0.693359375f * k;
}

static inline F8 root_of(F8 x) {
#if defined(__AVX__)
  return (F8)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < 8; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

static inline void box_muller(float* x) {
  F8 u = 1.0f - *(F8*)x, turns = *(F8*)(x + 8), square = -2.0f * log_of(u);
  F8 radius = root_of(square > 0.0f ? square : F8{});
  I8 quarter = __builtin_convertvector(turns * 4.0f + 0.5f, I8);
  F8 a = (turns - __builtin_convertvector(quarter, F8) * 0.25f) * 6.2831853072f, z = a * a;
  F8 s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * a + a;
  F8 c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z
      - 0.5f * z + 1.0f;
  I8 odd = (quarter & 1) != 0;
  F8 cosine = odd ? s : c, sine = odd ? c : s;
  *(F8*)x = radius * (((quarter + 1) & 2) != 0 ? -cosine : cosine);
  *(F8*)(x + 8) = radius * ((quarter & 2) != 0 ? -sine : sine);
}

// n standard normal numbers, those of torch.randn in float32 for n of at least 16.
extern "C" word normal(Random* random, float* to, word n) {
  uniform(random, to, n);
  for (word start = 0; start + 16 <= n; start += 16) box_muller(to + start);
  if (n % 16) uniform(random, to + n - 16, 16), box_muller(to + n - 16);
  return 0;
}

// c = a b + bias by a BLAS for matrices by columns, so that it computes the transposed product.
// The letter of each factor is 'n' if its rows lie together and 't' if its columns do.
typedef void (*Sgemm)(const char*, const char*, const int*, const int*, const int*, const float*,
                      const float*, const int*, const float*, const int*, const float*, float*,
                      const int*);
static Sgemm sgemm;
extern "C" word set_blas(Sgemm found) { sgemm = found; return 0; }
extern "C" word blas(const float* a, const float* b, const float* bias, float* c, word rows, word inner,
                     word columns, word lead_a, word lead_b, word turned_a, word turned_b,
                     word bias_rows) {
  int m = rows, k = inner, n = columns, la = lead_a, lb = lead_b, lc = columns;
  float one = 1.0f, beta = bias ? 1.0f : 0.0f;
  if (bias)
    for (word i = 0; i < rows; i++) std::memcpy(c + i * n, bias + i * bias_rows, 4 * columns);
  sgemm(turned_b ? "t" : "n", turned_a ? "t" : "n", &n, &m, &k, &one, b, &lb, a, &la, &beta, c, &lc);
  return 0;
}

// Adds up the terms of a step, and what was finite in all steps so far.
template <typename T>
static void record(const T* means, T* sums, word terms, const uint8_t* finite, uint8_t* all,
                   word* lasted, word count) {
  for (word i = 0; i < terms; i++) sums[i] += means[i];
  for (word i = 0; i < count; i++) all[i] &= finite[i], lasted[i] += all[i];
}
extern "C" word record_float(const float* means, float* sums, word terms, const uint8_t* finite,
                             uint8_t* all, word* lasted, word count) {
  record(means, sums, terms, finite, all, lasted, count);
  return 0;
}
extern "C" word record_double(const double* means, double* sums, word terms, const uint8_t* finite,
                              uint8_t* all, word* lasted, word count) {
  record(means, sums, terms, finite, all, lasted, count);
  return 0;
}
