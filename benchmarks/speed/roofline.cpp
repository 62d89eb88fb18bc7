// Measures this machine's peak rates: reading memory, multiply-adds of floats, multiply-adds of bytes.
//
//     roofline THREADS MEGABYTES...
//
// Prints one line per rate, a name and a number; each is the best of several repetitions. Reading passes repeatedly
// over working sets of the given sizes, so that a small one measures the caches and a large one the memory. Matrix
// units (AMX, SME) are not used: a decoding step multiplies matrices by vectors.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

constexpr int kRepetitions = 9;
constexpr int kChains = 12;  // independent sums, enough to hide the latency of a multiply-add

#if defined(__AVX512F__)
constexpr int kFloats = 16;
#elif defined(__AVX__)
constexpr int kFloats = 8;
#else
constexpr int kFloats = 4;
#endif
using Floats = float __attribute__((vector_size(4 * kFloats)));
using Words = int32_t __attribute__((vector_size(4 * kFloats)));

// Best time in seconds of `work(thread)` running on all threads at once.
double best_seconds(int threads, const std::function<void(int)>& work) {
    double best = 1e9;
    for (int repetition = 0; repetition < kRepetitions; ++repetition) {
        const auto began = std::chrono::steady_clock::now();
        std::vector<std::thread> others;
        for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
        work(0);
        for (auto& other : others) other.join();
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    return best;
}

// Prevents the optimiser from removing the computation of a value.
template <typename T>
void use(const T& value) {
    __asm__ volatile("" ::"m"(value) : "memory");
}

// GB/s of reading `megabytes`, with enough passes to take a few hundredths of a second.
double read_rate(int threads, int megabytes) {
    const size_t vectors = size_t(megabytes) * 1000000 / sizeof(Words) / threads;
    const int passes = std::max(1, 512 / megabytes);
    std::vector<std::vector<Words>> memory(threads);
    for (auto& part : memory) part.assign(vectors, Words{} + 1);
    const double seconds = best_seconds(threads, [&](int thread) {
        const Words* data = memory[thread].data();
        Words sums[8] = {};
        for (int pass = 0; pass < passes; ++pass) {
            for (size_t at = 0; at + 8 <= vectors; at += 8)
                for (int i = 0; i < 8; ++i) sums[i] += data[at + i];
            use(sums);
        }
    });
    return double(vectors) * sizeof(Words) * threads * passes / seconds / 1e9;
}

// Gop/s of `step`, which does `operations` operations on each of kChains sums.
template <typename Sum, typename Step>
double compute_rate(int threads, double operations, Sum first, Step step) {
    constexpr int kTurns = 4000000;
    const double seconds = best_seconds(threads, [&](int) {
        Step own = step;  // a local copy stays in registers: nothing else points to it
        Sum sums[kChains];
        for (auto& sum : sums) sum = first;
        for (int turn = 0; turn < kTurns; ++turn) {
            for (auto& sum : sums) own(sum);
            __asm__ volatile("");  // prevents the compiler from merging iterations
        }
        use(sums);
    });
    return operations * kChains * kTurns * threads / seconds / 1e9;
}

double float_rate(int threads) {
    Floats a = Floats{} + 0.999f, b = Floats{} + 1e-3f;
    __asm__ volatile("" : "+m"(a), "+m"(b));
    return compute_rate(threads, 2.0 * kFloats, Floats{}, [a, b](Floats& sum) { sum = sum * a + b; });
}

// Dot products of bytes into 32-bit sums, the instruction that int4 and int8 kernels are built from.
double byte_rate(int threads) {
#if defined(__AVX512VNNI__)
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    __asm__ volatile("" : "+v"(a), "+v"(b));
    return compute_rate(threads, 2.0 * 64, a, [a, b](__m512i& sum) { sum = _mm512_dpbusd_epi32(sum, a, b); });
#elif defined(__AVXVNNI__)
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
    __asm__ volatile("" : "+x"(a), "+x"(b));
    return compute_rate(threads, 2.0 * 32, a, [a, b](__m256i& sum) { sum = _mm256_dpbusd_avx_epi32(sum, a, b); });
#elif defined(__AVX2__)
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
    __asm__ volatile("" : "+x"(a), "+x"(b), "+x"(ones));
    return compute_rate(threads, 2.0 * 32, a, [a, b, ones](__m256i& sum) {
        __m256i pairs = _mm256_maddubs_epi16(a, b);
        __asm__ volatile("" : "+x"(pairs));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    });
#elif defined(__ARM_FEATURE_DOTPROD)
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
    __asm__ volatile("" : "+w"(a), "+w"(b));
    return compute_rate(threads, 2.0 * 16, vdupq_n_s32(0), [a, b](int32x4_t& sum) { sum = vdotq_s32(sum, a, b); });
#else
    (void)threads;
    return 0;  // the processor has no such instruction
#endif
}

}  // namespace

int main(int count, char** words) {
    if (count < 3) return 2;
    const int threads = std::atoi(words[1]);
    for (int at = 2; at < count; ++at)
        std::printf("read_%s %.4g\n", words[at], read_rate(threads, std::atoi(words[at])));
    std::printf("float %.4g\nbyte %.4g\n", float_rate(threads), byte_rate(threads));
}
