// c = a b + bias for float32 matrices, as the function `kernel` that torch's compiler makes callable.
//
// Blocks of c stay in registers while k runs: as many rows of a as fit, by up to three vectors of
// columns of b. If the columns of b, not its rows, lie together, they are first transposed block by
// block; with few rows of a, sums over k of both are faster. If the columns of a lie together, k is
// divided, and the sums so far are read from c: each number of a row is in another line of the cache.

#include <cstdint>
#include <algorithm>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#else
static inline int omp_get_max_threads() { return 1; }
#endif
#define UNROLL _Pragma("GCC unroll 16")
constexpr int64_t DEEP = 128;  // the most numbers along k at a time, if k is divided
#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 vec; typedef __mmask16 mask;
constexpr int64_t W = 16, ROWS = 8;
static inline mask upto(int64_t n) { return n >= W ? mask(-1) : mask((1u << n) - 1); }
static inline vec zero() { return _mm512_setzero_ps(); }
static inline vec spread(float x) { return _mm512_set1_ps(x); }
static inline vec get(const float* p, mask m) { return _mm512_maskz_loadu_ps(m, p); }
static inline void put(float* p, mask m, vec x) { _mm512_mask_storeu_ps(p, m, x); }
static inline vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline float total(vec x) { return _mm512_reduce_add_ps(x); }
static inline void zip(vec a, vec b, vec& low, vec& high) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  low = _mm512_permutex2var_ps(a, first, b);
  high = _mm512_permutex2var_ps(a, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b);
}
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
typedef __m256 vec; typedef __m256i mask;
constexpr int64_t W = 8, ROWS = 4;
static inline mask upto(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec zero() { return _mm256_setzero_ps(); }
static inline vec spread(float x) { return _mm256_set1_ps(x); }
static inline vec get(const float* p, mask m) { return _mm256_maskload_ps(p, m); }
static inline void put(float* p, mask m, vec x) { _mm256_maskstore_ps(p, m, x); }
static inline vec fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline float total(vec x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline void zip(vec a, vec b, vec& low, vec& high) {
  vec even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);
  low = _mm256_permute2f128_ps(even, odd, 0x20);
  high = _mm256_permute2f128_ps(even, odd, 0x31);
}
#else
#error "neither AVX-512 nor AVX2"
#endif

// R rows and V vectors of columns of c; the rows of b lie together, a has any strides.
template <int64_t R, int64_t V>
static void outer(const float* a, int64_t am, int64_t ak, const float* b, int64_t bk,
                  const float* bias, int64_t biasm, float* c, int64_t cm, int64_t K, mask last) {
  vec sum[R][V];
  UNROLL for (int64_t v = 0; v < V; v++)
    UNROLL for (int64_t r = 0; r < R; r++)
      sum[r][v] = bias ? get(bias + r * biasm + v * W, v == V - 1 ? last : upto(W)) : zero();
  for (int64_t k = 0; k < K; k++) {
    vec row[V];
    UNROLL for (int64_t v = 0; v < V; v++) row[v] = get(b + k * bk + v * W, v == V - 1 ? last : upto(W));
    UNROLL for (int64_t r = 0; r < R; r++) {
      vec x = spread(a[r * am + k * ak]);
      UNROLL for (int64_t v = 0; v < V; v++) sum[r][v] = fma(x, row[v], sum[r][v]);
    }
  }
  UNROLL for (int64_t r = 0; r < R; r++)
    UNROLL for (int64_t v = 0; v < V; v++) put(c + r * cm + v * W, v == V - 1 ? last : upto(W), sum[r][v]);
}

template <int64_t V>
static void columns(const float* a, int64_t am, int64_t ak, const float* b, int64_t bk,
                    const float* bias, int64_t biasm, float* c, int64_t cm, int64_t M, int64_t K,
                    mask last) {
  int64_t m = 0;
  while (m < M) {
    const float *x = a + m * am, *start = bias ? bias + m * biasm : nullptr;
    float* y = c + m * cm;
    int64_t left = M - m;
    if (left >= ROWS) outer<ROWS, V>(x, am, ak, b, bk, start, biasm, y, cm, K, last), m += ROWS;
    else if (left >= 4) outer<4, V>(x, am, ak, b, bk, start, biasm, y, cm, K, last), m += 4;
    else if (left >= 2) outer<2, V>(x, am, ak, b, bk, start, biasm, y, cm, K, last), m += 2;
    else outer<1, V>(x, am, ak, b, bk, start, biasm, y, cm, K, last), m += 1;
  }
}

// R x C sums over k of a row of a by a column of b, both of which lie together.
template <int64_t R, int64_t C>
static void inner(const float* a, int64_t am, const float* b, int64_t bn, const float* bias,
                  float* c, int64_t cm, int64_t K) {
  vec sum[R][C];
  UNROLL for (int64_t r = 0; r < R; r++)
    UNROLL for (int64_t j = 0; j < C; j++) sum[r][j] = zero();
  for (int64_t k = 0; k < K; k += W) {
    mask some = upto(K - k);
    vec left[R];
    UNROLL for (int64_t r = 0; r < R; r++) left[r] = get(a + r * am + k, some);
    UNROLL for (int64_t j = 0; j < C; j++) {
      vec right = get(b + j * bn + k, some);
      UNROLL for (int64_t r = 0; r < R; r++) sum[r][j] = fma(left[r], right, sum[r][j]);
    }
  }
  UNROLL for (int64_t r = 0; r < R; r++)
    UNROLL for (int64_t j = 0; j < C; j++) c[r * cm + j] = total(sum[r][j]) + (bias ? bias[j] : 0.0f);
}

template <int64_t C>
static void rows(const float* a, int64_t am, const float* b, int64_t bn, const float* bias, float* c,
                 int64_t cm, int64_t M, int64_t K) {
  int64_t m = 0;
  for (; m + 4 <= M; m += 4) inner<4, C>(a + m * am, am, b, bn, bias, c + m * cm, cm, K);
  for (; m < M; m++) inner<1, C>(a + m * am, am, b, bn, bias, c + m * cm, cm, K);
}

// Columns of b, which lie together along k, as rows of `width` numbers.
static void transpose(const float* b, int64_t bn, int64_t K, int64_t N, int64_t width, float* to) {
  for (int64_t n = 0; n < N; n += W)
    for (int64_t k = 0; k < K; k += W) {
      vec x[W], y[W];
      UNROLL for (int64_t i = 0; i < W; i++)
        x[i] = n + i < N ? get(b + (n + i) * bn + k, upto(K - k)) : zero();
      for (int64_t half = 1; half < W; half *= 2) {
        UNROLL for (int64_t i = 0; i < W / 2; i++) zip(x[i], x[i + W / 2], y[2 * i], y[2 * i + 1]);
        UNROLL for (int64_t i = 0; i < W; i++) x[i] = y[i];
      }
      for (int64_t i = 0; i < W && k + i < K; i++) put(to + (k + i) * width + n, upto(W), x[i]);
    }
}

extern "C" void kernel(const float* a, const float* b, const float* bias, float* c, int64_t M,
                       int64_t K, int64_t N, int64_t am, int64_t ak, int64_t bk, int64_t bn,
                       int64_t biased) {
  const float* start = biased ? bias : nullptr;
  if (bn != 1 && M < 16) {
    for (int64_t n = 0; n < N; n += 4) {
      const float* first = start ? start + n : nullptr;
      if (n + 4 <= N) rows<4>(a, am, b + n * bn, bn, first, c + n, N, M, K);
      else for (int64_t j = n; j < N; j++)
        rows<1>(a, am, b + j * bn, bn, start ? start + j : nullptr, c + j, N, M, K);
    }
    return;
  }
  int64_t vectors = (N + W - 1) / W, panels = (vectors + 2) / 3;
  int64_t each = (vectors + panels - 1) / panels, width = each * W;
  int64_t blocks = ak == 1 ? 1 : (K + DEEP - 1) / DEEP, deep = (K + blocks - 1) / blocks;
  // Threads that cannot share the panels evenly share the rows.
  int64_t threads = omp_get_max_threads(), even = panels % threads == 0 || M < 64 * threads;
  int64_t part = even ? std::max<int64_t>(M, 1) : (M + threads - 1) / threads;
  for (int64_t k = 0; k < K; k += deep) {
    int64_t some = std::min(deep, K - k), next = k ? N : 0;
    #pragma omp parallel for collapse(2) if (M * some * N > 4000000)
    for (int64_t m = 0; m < M; m += part)
    for (int64_t p = 0; p < panels; p++) {
      static thread_local std::vector<float> room;
      int64_t n = p * width, left = std::min((N - n + W - 1) / W, each), step = bk;
      if (left <= 0) continue;
      int64_t few = std::min(part, M - m);
      float* y = c + m * N + n;
      const float *x = a + m * am + k * ak, *from = b + k * bk + n * bn;
      if (bn != 1) {
        room.resize(std::max<int64_t>(room.size(), some * width));
        transpose(from, bn, some, std::min(N - n, width), width, room.data());
        from = room.data(), step = width;
      }
      mask last = upto(N - n - (left - 1) * W);
      const float* first = k ? y : biased ? bias + n : nullptr;
      if (left == 3) columns<3>(x, am, ak, from, step, first, next, y, N, few, some, last);
      if (left == 2) columns<2>(x, am, ak, from, step, first, next, y, N, few, some, last);
      if (left == 1) columns<1>(x, am, ak, from, step, first, next, y, N, few, some, last);
    }
  }
}
