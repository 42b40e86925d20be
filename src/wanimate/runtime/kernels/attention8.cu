// softmax(q k^T / sqrt(128)) v of float8 (e4m3) matrices on Hopper, heads of 128 numbers. `attention8.py` says what it gets.
//
// A thread block takes 192 queries of a head: three warp groups of 64 each, and a fourth one whose one thread brings keys
// and values to shared memory by the tensor memory accelerator. While one group waits for the tensor cores, the others
// compute exponentials. Keys are taken 64 at a time, from the last tile, which may be short, to the first.
//
// - Softmax goes on with the largest score known (arXiv 2205.14135). It is not looked for in every step: exponentials are
//   taken as if it had not changed, and only where one is too large for float8 are they taken again (the lazy rescaling of
//   FlashAttention-4, with float8 itself as the test).
// - The tensor cores of Hopper add products of float8 with some 14 bits: over tens of thousands of keys a sum loses what is
//   small (arXiv 2412.19437, section 3.3.2). So what has been summed goes to float32 in shared memory after every 1,024 keys.
// - Sums of a row's probabilities are products with a matrix of ones: those of what is rounded.
//
// - Where LISTED is defined, a thread block visits the tiles of keys of its own list, which is ascending and never empty.
//
// Wherever a thread has numbers of a matrix product, they are of rows lane / 4 and lane / 4 + 8 of its warp's 16.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int GROUPS = 3, THREADS = 128 * GROUPS;      // those that compute
constexpr int ROWS = 64, WIDTH = 128;                  // queries of a group, numbers of a head
constexpr int KEYS = 128, PART = 64, STAGES = 4;       // of a tile, of a step; tiles on their way
constexpr int KEEP = 8;                                // tiles between two moves to float32
constexpr int TILE = KEYS * WIDTH, QUERIES = ROWS * WIDTH, KEPT = GROUPS * QUERIES * 4, ONES = 1024;  // bytes
constexpr int SCORES = PART / 2, PACKED = PART / 8, MIXED = WIDTH / 2;  // registers of a thread
constexpr float LEAST = -1e30f;                        // below every score
constexpr float LOG2E_BY_SQRT_WIDTH = 0.12751743f;
constexpr float LARGEST = 8.0f;                        // the largest probability is 2^8 of float8's 448

struct alignas(64) Map { u64 words[16]; };  // a tensor map of the driver's

__device__ __forceinline__ u32 address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

__device__ __forceinline__ void init(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}
__device__ __forceinline__ void expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void wait(u32 barrier, u32 phase) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\nbra again;\nover:\n}" ::"r"(barrier), "r"(phase) : "memory");
}
__device__ __forceinline__ void load(u32 to, const Map* map, int column, int row, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier) : "memory");
}

// Descriptor of a matrix in shared memory: rows of 128 bytes, swizzled by 128 bytes, eight rows in 1,024 bytes.
__device__ __forceinline__ u64 matrix(u32 at) {
  return static_cast<u64>((at & 0x3FFFF) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

#define R4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define R16(x, i) R4(x, i), R4(x, i + 4), R4(x, i + 8), R4(x, i + 12)
#define R32(x) R16(x, 0), R16(x, 16)
#define R64(x) R16(x, 0), R16(x, 16), R16(x, 32), R16(x, 48)
#define A4(a) "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
#define NAMES32                                                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES64                                                                                             \
  NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, " \
          "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d = a b, or d += a b where it ADDS: a [64, 32] of registers, b [32, n] of shared memory
template <bool ADDS>
__device__ __forceinline__ void multiply(float (&d)[SCORES], const u32* a, u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" NAMES32 "}, {%32, %33, %34, %35}, %36, %37, 1, 1;"
               : R32(d) : A4(a), "l"(b), "n"(ADDS));
}
template <bool ADDS>
__device__ __forceinline__ void multiply(float (&d)[MIXED], const u32* a, u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" NAMES64 "}, {%64, %65, %66, %67}, %68, %69, 1, 1;"
               : R64(d) : A4(a), "l"(b), "n"(ADDS));
}
template <bool ADDS>
__device__ __forceinline__ void multiply(float (&d)[4], const u32* a, u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, %9, 1, 1;"
               : R4(d, 0) : A4(a), "l"(b), "n"(ADDS));
}
__device__ __forceinline__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all products are done; the registers are named so that nothing reads them before.
__device__ __forceinline__ void finish(float (&d)[SCORES]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : R32(d)::"memory");
}
__device__ __forceinline__ void finish(float (&d)[MIXED]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : R64(d)::"memory");
}
__device__ __forceinline__ void finish(float (&d)[4]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : R4(d, 0)::"memory");
}

// s = q k^T for one part of the keys
__device__ __forceinline__ void scores(float (&s)[SCORES], const u32 (&q)[16], u64 k) {
  multiply<false>(s, q, k);
#pragma unroll
  for (int i = 1; i < WIDTH / 32; i++) multiply<true>(s, q + 4 * i, k + 2 * i);
  commit();
}
// mixed += p v, sum = p 1 for one part of the keys
__device__ __forceinline__ void mix(float (&mixed)[MIXED], float (&sum)[4], const u32 (&p)[PACKED], u64 v, u64 ones) {
#pragma unroll
  for (int i = 0; i < PART / 32; i++) multiply<true>(mixed, p + 4 * i, v + 2 * i);
  multiply<false>(sum, p, ones);
#pragma unroll
  for (int i = 1; i < PART / 32; i++) multiply<true>(sum, p + 4 * i, ones);
  commit();
}

__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ u32 float8_of(float a, float b, float c, float d) {
  u32 out;
  asm("{\n.reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n}"
      : "=r"(out) : "f"(a), "f"(b), "f"(c), "f"(d));
  return out;
}

// Probabilities of two rows, if their largest scores are `top`; whether none is too large for float8. A thread's scores are
// keys 2q, 2q + 1, 8 + 2q, 9 + 2q of every 16, where a left matrix has 4q to 4q + 3: values come in that order.
__device__ __forceinline__ bool probabilities(const float (&s)[SCORES], u32 (&p)[PACKED], const float (&top)[2], float factor) {
  const float shift[2] = {LARGEST - top[0], LARGEST - top[1]};
  u32 large = 0;
#pragma unroll
  for (int j = 0; j < SCORES; j += 8) {
    float e[8];
#pragma unroll
    for (int i = 0; i < 8; i++) e[i] = exp2_of(fmaf(s[j + i], factor, shift[i / 2 % 2]));
#pragma unroll
    for (int r = 0; r < 2; r++) {
      u32& four = p[j / 4 + r] = float8_of(e[2 * r], e[2 * r + 1], e[4 + 2 * r], e[5 + 2 * r]);
      large |= four + 0x02020202;  // 448 is 0x7E: no other one gets the highest bit
    }
  }
  return !__any_sync(0xFFFFFFFF, large & 0x80808080);
}
// The same once the largest scores are known; `alpha`: what all sums until now have to be multiplied by.
__device__ __forceinline__ void look(float (&s)[SCORES], u32 (&p)[PACKED], float (&top)[2], float (&alpha)[2], float factor) {
  float most[2] = {s[0], s[2]};
#pragma unroll
  for (int i = 0; i < SCORES; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    most[r] = fmaxf(most[r], __shfl_xor_sync(0xFFFFFFFF, most[r], 1));
    most[r] = fmaxf(most[r], __shfl_xor_sync(0xFFFFFFFF, most[r], 2));
    const float now = fmaxf(most[r] * factor, top[r]);
    alpha[r] = exp2_of(top[r] - now);
    top[r] = now;
  }
  probabilities(s, p, top, factor);
}

extern "C" __global__ void __launch_bounds__(THREADS + 128, 1)
    attend(const __grid_constant__ Map q_map, const __grid_constant__ Map k_map, const __grid_constant__ Map v_map,
           const float* q_scale, const float* k_scale, const float* v_scale, u32* out, int queries, int keys, int heads
#ifdef LISTED
           , const short* lists, const int* counts, int most
#endif
           ) {
  // queries first, then in their place what is kept in float32; keys; values; ones
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ alignas(8) u64 barriers[4 * STAGES + 1];
  const int group = threadIdx.x / 128, head = blockIdx.y, first = blockIdx.x * (GROUPS * ROWS);
#ifdef LISTED
  const u64 own = static_cast<u64>(head) * gridDim.x + blockIdx.x;
  const short* const list = lists + own * most;
  const int tiles = counts[own];
  const auto tile_at = [&](int n) { return static_cast<int>(list[n]); };
#else
  const int tiles = (keys + KEYS - 1) / KEYS;
  const auto tile_at = [](int n) { return n; };
#endif
  const u32 q = address(memory), k = q + KEPT, v = k + STAGES * TILE, ones = v + STAGES * TILE;
  const u32 q_ready = address(barriers), k_ready = q_ready + 8, k_free = k_ready + 8 * STAGES,
            v_ready = k_free + 8 * STAGES, v_free = v_ready + 8 * STAGES;
  if (threadIdx.x == 0) {
    init(q_ready, 1);
    for (int i = 0; i < STAGES; i++) {
      init(k_ready + 8 * i, 1);
      init(v_ready + 8 * i, 1);
      init(k_free + 8 * i, 4 * GROUPS);
      init(v_free + 8 * i, 4 * GROUPS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  for (int i = threadIdx.x; i < ONES / 4; i += blockDim.x)
    reinterpret_cast<u32*>(memory + KEPT + 2 * STAGES * TILE)[i] = 0x38383838;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();

  if (group == GROUPS) {
#ifdef LISTED
    asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");  // it has a list to follow; with 160 of the others it is all there are
#else
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
#endif
    if (threadIdx.x == THREADS) {
      expect(q_ready, GROUPS * QUERIES);
      for (int i = 0; i < GROUPS; i++) load(q + i * QUERIES, &q_map, head * WIDTH, first + i * ROWS, q_ready);
      int stage = 0;
      u32 phase = 1;
      for (int n = tiles - 1; n >= 0; n--) {
        const int tile = tile_at(n);
        wait(k_free + 8 * stage, phase);
        expect(k_ready + 8 * stage, TILE);
        load(k + stage * TILE, &k_map, head * WIDTH, tile * KEYS, k_ready + 8 * stage);
        wait(v_free + 8 * stage, phase);
        expect(v_ready + 8 * stage, TILE);
        load(v + stage * TILE, &v_map, tile * KEYS, head * WIDTH, v_ready + 8 * stage);
        if (++stage == STAGES) stage = 0, phase ^= 1;
      }
    }
    return;
  }

  asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const float factor = q_scale[head] * k_scale[head] * LOG2E_BY_SQRT_WIDTH;
  const u64 all_k = matrix(k), all_v = matrix(v), one = matrix(ones);
  float s[SCORES], mixed[MIXED], sum[4], alpha[2];
  float total[2] = {0.0f, 0.0f}, top[2] = {LEAST, LEAST}, top_kept[2] = {LEAST, LEAST};
  u32 p[2][PACKED], mine[16];
  wait(q_ready, 0);
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const int row = warp * 16 + lane / 4 + i % 2 * 8, byte = i / 2 * 16 + lane % 4 * 4;
    mine[i] = *reinterpret_cast<const u32*>(memory + group * QUERIES + row * WIDTH + (byte ^ (row % 8 * 16)));
  }
  asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory");  // all have their queries
  float4* const kept = reinterpret_cast<float4*>(memory) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < MIXED / 4; i++) kept[i * THREADS] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
  for (int i = 0; i < MIXED; i++) mixed[i] = 0.0f;

  const auto keep = [&]() {
    const float beta[2] = {exp2_of(top_kept[0] - top[0]), exp2_of(top_kept[1] - top[1])};
#pragma unroll
    for (int i = 0; i < MIXED; i += 4) {
      float4& to = kept[i / 4 * THREADS];
      const float4 x = to;
      to = make_float4(fmaf(x.x, beta[0], mixed[i]), fmaf(x.y, beta[0], mixed[i + 1]),
                       fmaf(x.z, beta[1], mixed[i + 2]), fmaf(x.w, beta[1], mixed[i + 3]));
      mixed[i] = mixed[i + 1] = mixed[i + 2] = mixed[i + 3] = 0.0f;
    }
    top_kept[0] = top[0], top_kept[1] = top[1];
  };
  const auto hide = [&](int h) {  // scores of keys that are not there
    const int limit = keys - tile_at(tiles - 1) * KEYS;
#pragma unroll
    for (int i = 0; i < SCORES; i++)
      if (h * PART + i / 4 * 8 + lane % 4 * 2 + i % 2 >= limit) s[i] = __int_as_float(0xFF800000);  // minus infinity
  };
  int stage = 0, last = 0, left = KEEP;
  u32 phase = 0, last_phase = 0;
  // part h of a tile: its scores, and the values of the part before
  const auto step = [&](int h, bool hides) {
    if (h == 0) wait(k_ready + 8 * stage, phase);
    if (h == 1) wait(v_ready + 8 * last, last_phase);
    fence();
    mix(mixed, sum, p[1 - h], all_v + (last * TILE + (1 - h) * PART) / 16, one);
    scores(s, mine, all_k + (stage * TILE + h * PART * WIDTH) / 16);
    finish(s), finish(mixed), finish(sum);
    total[0] += sum[0], total[1] += sum[2];
    if (h == 1 && lane == 0) arrive(k_free + 8 * stage);
    if (h == 0 && lane == 0) arrive(v_free + 8 * last);
    if (h == 0 && --left == 0) keep(), left = KEEP;
    if (hides) hide(h);
    if (hides || !probabilities(s, p[h], top, factor)) {
      look(s, p[h], top, alpha, factor);
      total[0] *= alpha[0], total[1] *= alpha[1];
#pragma unroll
      for (int i = 0; i < MIXED; i++) mixed[i] *= alpha[i / 2 % 2];
    }
    last = stage, last_phase = phase;
  };

  wait(k_ready, 0);
  fence();
  scores(s, mine, all_k);
  finish(s);
  hide(0);
  look(s, p[0], top, alpha, factor);
  step(1, true);
  stage = 1;
  for (int n = 1; n < tiles; n++) {
    step(0, false);
    step(1, false);
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
  fence();
  mix(mixed, sum, p[1], all_v + (last * TILE + PART) / 16, one);
  finish(mixed), finish(sum);
  total[0] += sum[0], total[1] += sum[2];
  keep();
  const float value = v_scale[head];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float scale = value / total[r];
    const int row = first + group * ROWS + warp * 16 + lane / 4 + 8 * r;
    if (row >= queries) continue;
    u32* to = out + (static_cast<u64>(row) * heads + head) * (WIDTH / 2) + lane % 4;
#pragma unroll
    for (int i = 0; i < MIXED / 4; i++) {
      const float4 x = kept[i * THREADS];
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(to[4 * i]) : "f"((r ? x.w : x.y) * scale), "f"((r ? x.z : x.x) * scale));
    }
  }
}
