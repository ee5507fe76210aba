// What one card can do: fused float32 EM of full covariances, a run in a few lanes (D < 4) or in a block of its own.
// Usage: nvcc -O3 -arch=sm_90 -DD=2 -DK=3 -DN=300 fused_em_limit.cu; ./a.out RUNS ITERS
// Samples stay in registers or in shared memory from the first iteration to the last; whoever has ended takes the next
// run of a queue. Of some divisions of a run among lanes, the fastest counts.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#ifndef D
#define D 2
#endif
#ifndef K
#define K 3
#endif
#ifndef N
#define N 300
#endif
#define FULL 0xffffffffu
__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float lg2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float rsq(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
  return y;
}
__host__ __device__ constexpr int tri(int d) { return d * (d + 1) / 2; }
__host__ __device__ constexpr int at(int i, int j) { return i >= j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i; }

struct Args {
  const float *x, *w0, *m0, *S0;  // samples (B, N, D); starts
  float *w, *m, *S, *ll;          // ends
  int *it, *queue;
  int B, max_iter;
  float tol, ridge;
};
// covariance (lower triangle) -> A (scaled precision, off-diagonals doubled) and constant, in log2 units
__device__ __forceinline__ void factor(float w, const float* S, float* A, float& c) {
  float L[tri(D)], V[D];
  float pr = 1.f;
#pragma unroll
  for (int j = 0; j < D; j++) {
    float s = S[at(j, j)];
#pragma unroll
    for (int q = 0; q < j; q++) s -= L[at(j, q)] * L[at(j, q)];
    V[j] = rsq(s);
    pr *= V[j];
#pragma unroll
    for (int i = j + 1; i < D; i++) {
      float t = S[at(i, j)];
#pragma unroll
      for (int q = 0; q < j; q++) t -= L[at(i, q)] * L[at(j, q)];
      L[at(i, j)] = t * V[j];
    }
  }
  float W[tri(D)];
#pragma unroll
  for (int j = 0; j < D; j++) {
    W[at(j, j)] = V[j];
#pragma unroll
    for (int i = j + 1; i < D; i++) {
      float t = 0;
#pragma unroll
      for (int q = j; q < i; q++) t -= L[at(i, q)] * W[at(q, j)];
      W[at(i, j)] = t * V[i];
    }
  }
#pragma unroll
  for (int i = 0; i < D; i++)
#pragma unroll
    for (int j = 0; j <= i; j++) {
      float t = 0;
#pragma unroll
      for (int q = i; q < D; q++) t += W[at(q, i)] * W[at(q, j)];
      A[at(i, j)] = t * (i == j ? -0.72134752f : -1.44269504f);
    }
  c = lg2(w) + lg2(pr) - D * 1.32574806f;  // log2(2 pi)/2
}
// Parameters in use of a run, for each component its weight, mean and covariance; kept where lanes can read them.
constexpr int T = 1 + D + tri(D);

__device__ __forceinline__ void keep_component(float w, const float* mu, const float* S, float* kept) {
  kept[0] = w;
#pragma unroll
  for (int d = 0; d < D; d++) kept[1 + d] = mu[d];
#pragma unroll
  for (int t = 0; t < tri(D); t++) kept[1 + D + t] = S[t];
}

// The start of component k of a run.
__device__ __forceinline__ void begin(const Args& a, int idx, int k, float* mu, float* A, float& c, bool keeps,
                                      float* kept) {
  float S[tri(D)];
  float w = a.w0[(size_t)idx * K + k];
#pragma unroll
  for (int d = 0; d < D; d++) mu[d] = a.m0[((size_t)idx * K + k) * D + d];
#pragma unroll
  for (int i = 0; i < D; i++)
#pragma unroll
    for (int j = 0; j <= i; j++) S[at(i, j)] = a.S0[((size_t)idx * K + k) * D * D + i * D + j];
  factor(w, S, A, c);
  if (keeps) keep_component(w, mu, S, kept);
}

// The M-step of a component, from sums about its mean or, if not CEN, about 0.
template <bool CEN>
__device__ __forceinline__ void m_step(const float* acc, float ridge, float* mu, float* A, float& c, bool keeps,
                                       float* kept) {
  float inv = rcp(acc[0]), S[tri(D)], dm[D], w = acc[0] * (1.f / N);
#pragma unroll
  for (int i = 0; i < D; i++) dm[i] = acc[1 + i] * inv;
#pragma unroll
  for (int i = 0; i < D; i++)
#pragma unroll
    for (int j = 0; j <= i; j++) S[at(i, j)] = acc[1 + D + at(i, j)] * inv - dm[i] * dm[j] + (i == j ? ridge : 0.f);
#pragma unroll
  for (int i = 0; i < D; i++) mu[i] = CEN ? mu[i] + dm[i] : dm[i];
  factor(w, S, A, c);
  if (keeps) keep_component(w, mu, S, kept);
}

// Writes the parameters of a run that has ended, by lanes that each write every so many numbers.
__device__ __forceinline__ void leave(const Args& a, int idx, const float* kept, int lane, int n_lanes, float ll,
                                      int it) {
  for (int q = lane; q < K * T; q += n_lanes) {
    int k = q / T, t = q % T;
    float v = kept[q];
    if (t == 0)
      a.w[(size_t)idx * K + k] = v;
    else if (t <= D)
      a.m[((size_t)idx * K + k) * D + t - 1] = v;
    else {
      t -= 1 + D;
      int i = 0;
      while ((i + 1) * (i + 2) / 2 <= t) i++;
      int j = t - i * (i + 1) / 2;
      a.S[((size_t)idx * K + k) * D * D + i * D + j] = v;
      a.S[((size_t)idx * K + k) * D * D + j * D + i] = v;
    }
  }
  if (lane == 0) {
    a.ll[idx] = ll;
    a.it[idx] = it;
  }
}

#if D < 4
// ---------------------------------------------------------------- small: a run in G lanes, samples in registers
// CEN: moments about the component's mean, not raw ones.
template <int G, bool CEN, int WARPS, int MINB>
__device__ __forceinline__ void small_body(const Args a) {
  constexpr int R = (N + G - 1) / G;
  __shared__ float keep[WARPS * 32 / G][K * T];  // w, mean, covariance of the parameters in use
  const int lane = threadIdx.x & 31, gl = lane & (G - 1);
  const unsigned gm = (G == 32) ? FULL : (((1u << (G & 31)) - 1u) << (lane & ~(G - 1)));
  float* kp = keep[threadIdx.x / G];
  float x[R][D], mu[K][D], A[K][tri(D)], b[K][D], c[K];
  int idx = -1, it = 0;
  bool need = true;
  float prev = 0;
  const bool tail = (R - 1) * G + gl < N;
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int d = 0; d < D; d++) x[r][d] = 0;
#pragma unroll
  for (int k = 0; k < K; k++) {
    c[k] = 0;
#pragma unroll
    for (int d = 0; d < D; d++) {
      mu[k][d] = 0;
      b[k][d] = 0;
    }
#pragma unroll
    for (int t = 0; t < tri(D); t++) A[k][t] = 0;
  }
  while (true) {
    if (need) {
      if (gl == 0) idx = atomicAdd(a.queue, 1);
      idx = __shfl_sync(gm, idx, 0, G);
      if (idx < a.B) {
        const float* xp = a.x + (size_t)idx * N * D;
#pragma unroll
        for (int r = 0; r < R; r++) {
          int n = r * G + gl;
          bool v = (r < R - 1) || tail;
#pragma unroll
          for (int d = 0; d < D; d++) x[r][d] = v ? __ldg(xp + n * D + d) : 0.f;
        }
#pragma unroll
        for (int k = 0; k < K; k++) begin(a, idx, k, mu[k], A[k], c[k], gl == 0, kp + k * T);
        it = 0;
        need = false;
        prev = -3e38f;
      }
    }
    if (__all_sync(FULL, idx >= a.B)) break;
    float acc[K][T];
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
      for (int t = 0; t < T; t++) acc[k][t] = 0;
    if (!CEN) {  // raw form: constant and linear term about 0
#pragma unroll
      for (int k = 0; k < K; k++) {
        float q = c[k];
#pragma unroll
        for (int i = 0; i < D; i++) {
          float bi = 0;
#pragma unroll
          for (int j = 0; j < D; j++) bi += (i == j ? 2.f : 1.f) * A[k][at(i, j)] * mu[k][j];
          b[k][i] = -bi;
          q += 0.5f * bi * mu[k][i];
        }
        c[k] = q;
      }
    }
    float top = 0, prod = 1.f, logs = 0;
#pragma unroll
    for (int r = 0; r < R; r++) {
      const bool v = (r < R - 1) || (N % G == 0) || tail;
      float rk[K];
      float lp[K], mx;
#pragma unroll
      for (int k = 0; k < K; k++) {
        float q = c[k];
        if (CEN) {
          float dd[D];
#pragma unroll
          for (int d = 0; d < D; d++) dd[d] = x[r][d] - mu[k][d];
#pragma unroll
          for (int i = 0; i < D; i++) {
            float t = A[k][at(i, 0)] * dd[0];
#pragma unroll
            for (int j = 1; j <= i; j++) t += A[k][at(i, j)] * dd[j];
            q += t * dd[i];
          }
        } else {
#pragma unroll
          for (int i = 0; i < D; i++) {
            float t = b[k][i];
#pragma unroll
            for (int j = 0; j <= i; j++) t += A[k][at(i, j)] * x[r][j];
            q += t * x[r][i];
          }
        }
        lp[k] = q;
        mx = k ? fmaxf(mx, q) : q;
      }
      float s = 0;
#pragma unroll
      for (int k = 0; k < K; k++) {
        rk[k] = ex2(lp[k] - mx);
        s += rk[k];
      }
      float inv = rcp(s);
      if (!v) {
        inv = 0;
        s = 1.f;
        mx = 0;
      }
#pragma unroll
      for (int k = 0; k < K; k++) rk[k] *= inv;
      top += mx;
      prod *= s;
      if (r % 32 == 31) {
        logs += lg2(prod);
        prod = 1.f;
      }  // a sum of logs as the log of a product: s is in [1,K]
      if (CEN) {
#pragma unroll
        for (int k = 0; k < K; k++) {
          acc[k][0] += rk[k];
#pragma unroll
          for (int i = 0; i < D; i++) {
            float di = x[r][i] - mu[k][i], y = rk[k] * di;
            acc[k][1 + i] += y;
#pragma unroll
            for (int j = 0; j <= i; j++) acc[k][1 + D + at(i, j)] += y * (x[r][j] - mu[k][j]);
          }
        }
      } else {
        float p[tri(D)];
#pragma unroll
        for (int i = 0; i < D; i++)
#pragma unroll
          for (int j = 0; j <= i; j++) p[at(i, j)] = x[r][i] * x[r][j];
#pragma unroll
        for (int k = 0; k < K; k++) {
          acc[k][0] += rk[k];
#pragma unroll
          for (int i = 0; i < D; i++) acc[k][1 + i] += rk[k] * x[r][i];
#pragma unroll
          for (int t = 0; t < tri(D); t++) acc[k][1 + D + t] += rk[k] * p[t];
        }
      }
    }
    float ll = top + logs + lg2(prod);
#pragma unroll
    for (int o = 1; o < G; o <<= 1) {
#pragma unroll
      for (int k = 0; k < K; k++)
#pragma unroll
        for (int t = 0; t < T; t++) acc[k][t] += __shfl_xor_sync(FULL, acc[k][t], o);
      ll += __shfl_xor_sync(FULL, ll, o);
    }
    ll *= 0.69314718f;
    bool done = it >= a.max_iter || !(ll - prev >= a.tol * N);
    if (!need && idx < a.B && done) {  // ll belongs to the parameters in keep
      __syncwarp(gm);
      leave(a, idx, kp, gl, G, ll, it);
      __syncwarp(gm);
      need = true;
    }
    __syncwarp();
    prev = ll;
    it++;
#pragma unroll
    for (int k = 0; k < K; k++) m_step<CEN>(acc[k], a.ridge, mu[k], A[k], c[k], gl == 0, kp + k * T);
  }
}

template <int G, bool CEN, int WARPS, int MINB>
__global__ void __launch_bounds__(WARPS * 32, MINB) small(Args a) {
  small_body<G, CEN, WARPS, MINB>(a);
}
#else
// ---------------------------------------------------------------- wide: a run in one block, KL components per lane
// Samples in shared memory; P=K/KL lanes share a sample; moments about the component's mean: as few operations as raw
// ones.
template <int KL, int W, int U, int MINB>
__device__ __forceinline__ void wide_body(const Args a) {
  constexpr int P = K / KL, SP = 32 / P;
  extern __shared__ __align__(16) float sm[];
  constexpr int NP = (N + 3) & ~3;
  float* xs = sm;
  float* red = sm + (size_t)NP * D;  // red: W x K x (T), kept: K x T, ll: W
  float* keep = red + W * K * T;
  float* lls = keep + K * T;
  int* next = (int*)(lls + W);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, kk = (lane % P) * KL, sg = lane / P;
  while (true) {
    if (threadIdx.x == 0) *next = atomicAdd(a.queue, 1);
    __syncthreads();
    const int idx = *next;
    if (idx >= a.B) return;
    {
      const float4* src = (const float4*)(a.x + (size_t)idx * N * D);
      float4* dst = (float4*)xs;
      for (int i = threadIdx.x; i < N * D / 4; i += W * 32) dst[i] = __ldg(src + i);
    }
    float mu[KL][D], A[KL][tri(D)], c[KL];
#pragma unroll
    for (int l = 0; l < KL; l++) begin(a, idx, kk + l, mu[l], A[l], c[l], warp == 0 && sg == 0, keep + (kk + l) * T);
    __syncthreads();
    float prev = -3e38f;
    int it = 0;
    while (true) {
      float acc[KL][T];
#pragma unroll
      for (int l = 0; l < KL; l++)
#pragma unroll
        for (int t = 0; t < T; t++) acc[l][t] = 0;
      float top = 0;
      auto step = [&](int base, bool masked) {
        float xv[U][D], rk[U][KL];
#pragma unroll
        for (int u = 0; u < U; u++) {
          int n = base + u * W * SP + sg;
          if (masked && n >= N) n = N - 1;
          if constexpr (D % 4 == 0) {
#pragma unroll
            for (int d = 0; d < D; d += 4) {
              float4 f = *(const float4*)(xs + n * D + d);
              xv[u][d] = f.x;
              xv[u][d + 1] = f.y;
              xv[u][d + 2] = f.z;
              xv[u][d + 3] = f.w;
            }
          } else {
#pragma unroll
            for (int d = 0; d < D; d++) xv[u][d] = xs[n * D + d];
          }
        }
        float mx[U], s[U];
#pragma unroll
        for (int u = 0; u < U; u++) {
#pragma unroll
          for (int l = 0; l < KL; l++) {
            float q = c[l], dd[D];
#pragma unroll
            for (int d = 0; d < D; d++) dd[d] = xv[u][d] - mu[l][d];
#pragma unroll
            for (int i = 0; i < D; i++) {
              float t = A[l][at(i, 0)] * dd[0];
#pragma unroll
              for (int j = 1; j <= i; j++) t += A[l][at(i, j)] * dd[j];
              q += t * dd[i];
            }
            rk[u][l] = q;
            mx[u] = l ? fmaxf(mx[u], q) : q;
          }
        }
#pragma unroll
        for (int o = 1; o < P; o <<= 1)
#pragma unroll
          for (int u = 0; u < U; u++) mx[u] = fmaxf(mx[u], __shfl_xor_sync(FULL, mx[u], o));
#pragma unroll
        for (int u = 0; u < U; u++) {
          s[u] = 0;
#pragma unroll
          for (int l = 0; l < KL; l++) {
            rk[u][l] = ex2(rk[u][l] - mx[u]);
            s[u] += rk[u][l];
          }
        }
#pragma unroll
        for (int o = 1; o < P; o <<= 1)
#pragma unroll
          for (int u = 0; u < U; u++) s[u] += __shfl_xor_sync(FULL, s[u], o);
#pragma unroll
        for (int u = 0; u < U; u++) {
          float inv = rcp(s[u]);
          float l2 = mx[u] + lg2(s[u]);
          if (masked && base + u * W * SP + sg >= N) {
            inv = 0;
            l2 = 0;
          }
          top += l2;
#pragma unroll
          for (int l = 0; l < KL; l++) rk[u][l] *= inv;
        }
#pragma unroll
        for (int u = 0; u < U; u++)
#pragma unroll
          for (int l = 0; l < KL; l++) {
            acc[l][0] += rk[u][l];
            float dd[D];
#pragma unroll
            for (int i = 0; i < D; i++) {
              dd[i] = xv[u][i] - mu[l][i];
              float y = rk[u][l] * dd[i];
              acc[l][1 + i] += y;
#pragma unroll
              for (int j = 0; j <= i; j++) acc[l][1 + D + at(i, j)] += y * dd[j];
            }
          }
      };
      int base = warp * SP;
      for (; base + (U - 1) * W * SP + SP <= N; base += U * W * SP) step(base, false);
      if (base < N) step(base, true);
#pragma unroll
      for (int o = P; o < 32; o <<= 1) {
#pragma unroll
        for (int l = 0; l < KL; l++)
#pragma unroll
          for (int t = 0; t < T; t++) acc[l][t] += __shfl_xor_sync(FULL, acc[l][t], o);
        top += __shfl_xor_sync(FULL, top, o);
      }
      if (sg == 0) {
#pragma unroll
        for (int l = 0; l < KL; l++)
#pragma unroll
          for (int t = 0; t < T; t++) red[(warp * T + t) * K + kk + l] = acc[l][t];
        if (lane == 0) lls[warp] = top;
      }
      __syncthreads();
#pragma unroll
      for (int l = 0; l < KL; l++)
#pragma unroll
        for (int t = 0; t < T; t++) {
          float v = 0;
#pragma unroll
          for (int q = 0; q < W; q++) v += red[(q * T + t) * K + kk + l];
          acc[l][t] = v;
        }
      float ll = 0;
#pragma unroll
      for (int q = 0; q < W; q++) ll += lls[q];
      ll *= 0.69314718f;
      if (it >= a.max_iter || !(ll - prev >= a.tol * N)) {
        leave(a, idx, keep, threadIdx.x, W * 32, ll, it);
        __syncthreads();
        break;
      }
      prev = ll;
      it++;
#pragma unroll
      for (int l = 0; l < KL; l++)
        m_step<true>(acc[l], a.ridge, mu[l], A[l], c[l], warp == 0 && sg == 0, keep + (kk + l) * T);
      __syncthreads();  // keep and red may be overwritten after this
    }
  }
}

template <int KL, int W, int U, int MINB>
__global__ void __launch_bounds__(W * 32, MINB) wide(Args a) {
  wide_body<KL, W, U, MINB>(a);
}
// Bytes of shared memory of a block of W warps: samples, sums of each warp, parameters in use.
#define SHARED(W) (4 * (size_t)(((N + 3) & ~3) * D + ((W) + 1) * K * (1 + D + tri(D)) + (W) + 4))
#endif

static Args a;

template <class Kernel>
static void timed(const char* name, Kernel kernel, int threads, size_t shared, float* best) {
  int units = 0, blocks = 0;
  cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, 0);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared) != cudaSuccess || blocks < 1)
    return;
  cudaGetLastError();  // of attributes that this card refuses
  cudaEvent_t begin, end;
  cudaEventCreate(&begin), cudaEventCreate(&end);
  for (int repeat = 0; repeat < 4; repeat++) {
    cudaMemset(a.queue, 0, sizeof(int));
    cudaEventRecord(begin);
    kernel<<<units * blocks, threads, shared>>>(a);
    const cudaError_t launched = cudaGetLastError();
    cudaEventRecord(end);
    if (launched != cudaSuccess || cudaEventSynchronize(end) != cudaSuccess)
      fprintf(stderr, "%s: %s\n", name, cudaGetErrorString(launched != cudaSuccess ? launched : cudaGetLastError())),
          exit(1);
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, begin, end);
    if (repeat && 1e-3f * milliseconds < *best) *best = 1e-3f * milliseconds;  // the first repeat loads the kernel
  }
}

static float* on_card(size_t n) {
  void* p = nullptr;
  if (cudaMalloc(&p, n * sizeof(float)) != cudaSuccess) fprintf(stderr, "no memory on the card\n"), exit(1);
  return (float*)p;
}

static const float* copied(const float* values, size_t n) {
  float* p = on_card(n);
  cudaMemcpy(p, values, n * sizeof(float), cudaMemcpyHostToDevice);
  return p;
}

int main(int n_arguments, char** arguments) {
  if (n_arguments < 3) return fprintf(stderr, "usage: RUNS ITERS\n"), 2;
  const int B = atoi(arguments[1]), iters = atoi(arguments[2]);
  const size_t runs = B, n_x = runs * N * D;
  float *x = (float*)malloc(n_x * sizeof(float)), *w = (float*)malloc(runs * K * sizeof(float));
  float *m = (float*)malloc(runs * K * D * sizeof(float)), *S = (float*)calloc(runs * K * D * D, sizeof(float));
  unsigned state = 1;
  for (size_t i = 0; i < n_x; i++) {
    float sum = 0;  // of four uniform numbers: nearly Gaussian
    for (int j = 0; j < 4; j++) sum += (state = state * 1664525u + 1013904223u) * (1.f / 4294967296.f);
    x[i] = 1.7f * (sum - 2) + 3.f * ((i / D) % K);
  }
  for (size_t r = 0; r < runs; r++)
    for (int k = 0; k < K; k++) {
      w[r * K + k] = 1.f / K;
      for (int d = 0; d < D; d++) m[(r * K + k) * D + d] = 2.5f * k, S[((r * K + k) * D + d) * D + d] = 1;
    }
  a = {copied(x, n_x),
       copied(w, runs * K),
       copied(m, runs * K * D),
       copied(S, runs * K * D * D),
       on_card(runs * K),
       on_card(runs * K * D),
       on_card(runs * K * D * D),
       on_card(runs),
       (int*)on_card(runs),
       (int*)on_card(1),
       B,
       iters,
       -1,
       1e-6f};
  float best = 1e30f;
#if D < 4
  timed("4 lanes, raw", small<4, false, 4, 4>, 128, 0, &best);
  timed("8 lanes, raw", small<8, false, 4, 4>, 128, 0, &best);
  timed("8 lanes, centred", small<8, true, 4, 4>, 128, 0, &best);
  timed("16 lanes, raw", small<16, false, 4, 5>, 128, 0, &best);
#else
  timed("4 warps", wide<1, 4, 2, 3>, 128, SHARED(4), &best);
  timed("8 warps", wide<1, 8, 1, 2>, 256, SHARED(8), &best);
#endif
  if (best > 1e29f) return fprintf(stderr, "no kernel fits the card\n"), 1;
  printf("D=%d K=%d, %d runs of %d x %d iterations: %.6f s, %.4g run-iterations/s\n", D, K, B, N, iters, best,
         (double)B * iters / best);
}
