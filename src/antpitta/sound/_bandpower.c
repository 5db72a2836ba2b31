/* The power in bands of frequency, frame by frame: transform, square and triangles in one go.

   Sixteen frames go side by side, one in each lane of a vector, so that every step of the transform
   is the same for all of them and nothing is shuffled. A frame of n real samples is taken as n / 2
   complex ones; their transform is Cooley and Tukey's, decimated in time, depth first, so that what
   is combined still lies in the processor's nearest cache; the real bins follow from pairs of its
   values (Numerical Recipes, 3rd edition, 12.3.2), are squared, and added to the two bands that
   they belong to. No bin of any frame is ever written to memory.

   Compiled three times for x86-64; which one runs is settled when the library is loaded. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define DEEPEST 16
#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__ELF__)
#define EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_PROCESSOR
#endif

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef float anywhere __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int order __attribute__((vector_size(4 * LANES)));
typedef struct { lanes re, im; } complex;

typedef struct { /* sound/compiled.py has the same, field for field */
    int n, hop, bins, bands;
    int columns;           /* of a tile: the lanes, and the hops that a frame is longer than one */
    int leaf, depth;       /* transforms of 4 or 8 first, then so many passes over them */
    const int *radix;      /* (depth,): 4 or 3 */
    const int *places;     /* (n / 2,): in a tile, of each value, in the order that leaves take them */
    const float *window;   /* (n / 2, 2), in the same order */
    const float *twiddles; /* of each pass in turn: (values / radix, radix - 1, re and im) */
    const float *turns;    /* (n / 4 + 1, re and im): of the real bins */
    const int *first;      /* (bins,): the first of the two bands of a bin */
    const float *weights;  /* (bins, 2): of its power in that band and the next */
} plan;

INLINE complex plus(complex a, complex b) { return (complex){a.re + b.re, a.im + b.im}; }
INLINE complex minus(complex a, complex b) { return (complex){a.re - b.re, a.im - b.im}; }
INLINE complex back(complex a) { return (complex){a.im, -a.re}; } /* times -i */
INLINE complex times(complex a, const float *w) {
    return (complex){a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}

/* Transforms of three and of four, in place. */
INLINE void three(complex *a, complex *b, complex *c) {
    const float half = 0.5f, sine = 0.86602540378443865f;
    complex sum = plus(*b, *c), gap = back(minus(*b, *c));
    complex mid = {a->re - half * sum.re, a->im - half * sum.im};
    gap = (complex){gap.re * sine, gap.im * sine};
    *a = plus(*a, sum), *b = plus(mid, gap), *c = minus(mid, gap);
}

INLINE void four(complex *a, complex *b, complex *c, complex *d) {
    complex even = plus(*a, *c), odd = minus(*a, *c), sum = plus(*b, *d), gap = back(minus(*b, *d));
    *a = plus(even, sum), *b = plus(odd, gap), *c = minus(even, sum), *d = minus(odd, gap);
}

/* Two neighbouring samples of every frame, windowed, as one complex value. Row i of a tile (hop,
   columns) has the samples i, hop + i, 2 * hop + i, ... of the sound: frames overlap, so each sample
   is there but once. The hop is even, so the second is in the next row. */
INLINE complex value(const plan *p, const float *tile, int at) {
    const float *place = tile + p->places[at], *weight = p->window + 2 * at;
    lanes re = *(const anywhere *)place, im = *(const anywhere *)(place + p->columns);
    return (complex){re * weight[0], im * weight[1]};
}

INLINE void leaf_of_four(const plan *p, const float *tile, int at, int step, complex *out) {
    for (int i = 0; i < 4; i++) out[i] = value(p, tile, at + i * step);
    four(out, out + 1, out + 2, out + 3);
}

INLINE void leaf_of_eight(const plan *p, const float *tile, int at, complex *out) {
    const float h = 0.70710678118654752f; /* cosine and sine of an eighth turn */
    const float turns[4][2] = {{1, 0}, {h, -h}, {0, -1}, {-h, -h}};
    complex even[4], odd[4];
    leaf_of_four(p, tile, at, 2, even);
    leaf_of_four(p, tile, at + 1, 2, odd);
    for (int i = 0; i < 4; i++) {
        complex turned = times(odd[i], turns[i]);
        out[i] = plus(even[i], turned), out[i + 4] = minus(even[i], turned);
    }
}

/* Makes one transform of ``radix`` neighbouring ones, together ``size`` values long. */
INLINE void combine(complex *x, int size, int radix, const float *w) {
    int part = size / radix;
    for (int k = 0; k < part; k++, w += 2 * (radix - 1)) {
        complex a = x[k], b = times(x[k + part], w), c = times(x[k + 2 * part], w + 2);
        if (radix == 4) {
            complex d = times(x[k + 3 * part], w + 4);
            four(&a, &b, &c, &d);
            x[k + 3 * part] = d;
        } else three(&a, &b, &c);
        x[k] = a, x[k + part] = b, x[k + 2 * part] = c;
    }
}

EVERY_PROCESSOR static void transform(const plan *p, const float *tile, complex *x) {
    int parts[DEEPEST] = {0}; /* of each pass, done since it was last complete */
    for (int at = 0; at < p->n / 2;) {
        if (p->leaf == 8) leaf_of_eight(p, tile, at, x + at);
        else leaf_of_four(p, tile, at, 1, x + at);
        at += p->leaf;
        const float *w = p->twiddles;
        for (int d = 0, size = p->leaf; d < p->depth; d++) {
            int radix = p->radix[d];
            size *= radix;
            if (++parts[d] < radix) break;
            parts[d] = 0;
            if (radix == 4) combine(x + at - size, size, 4, w);
            else combine(x + at - size, size, 3, w);
            w += 2 * (size / radix) * (radix - 1);
        }
    }
}

INLINE void give(const plan *p, int bin, complex value, lanes *bands) {
    if (bin >= p->bins) return;
    lanes power = value.re * value.re + value.im * value.im;
    bands[p->first[bin]] += power * p->weights[2 * bin];
    bands[p->first[bin] + 1] += power * p->weights[2 * bin + 1];
}

EVERY_PROCESSOR static void share(const plan *p, const complex *x, lanes *bands) {
    int count = p->n / 2;
    for (int k = 0; k <= count / 2; k++) {
        complex one = x[k], other = x[k ? count - k : 0];
        other.im = -other.im;
        complex even = plus(one, other), odd = times(back(minus(one, other)), p->turns + 2 * k);
        give(p, k, plus(even, odd), bands); /* twice the bin: the weights are a quarter */
        if (2 * k < count) give(p, count - k, minus(even, odd), bands);
    }
}

/* Rows ``gap`` apart exchange those of their values that are: four times, and rows are columns. */
INLINE void exchange(lanes *x, int gap) {
    const order at = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const order left = at + (((at & gap) != 0) & (LANES - gap)), right = left + gap;
    for (int i = 0; i < LANES; i++) {
        if (i & gap) continue;
        lanes one = x[i], other = x[i + gap];
        x[i] = __builtin_shuffle(one, other, left);
        x[i + gap] = __builtin_shuffle(one, other, right);
    }
}

/* Puts ``count`` hops of sound into a tile, from column ``first`` on. */
EVERY_PROCESSOR static void lay_out(const plan *p, const float *wave, int first, int count, float *tile) {
    int rows = count == LANES ? p->hop / LANES * LANES : 0;
    for (int start = 0; start < rows; start += LANES) {
        lanes x[LANES];
        for (int i = 0; i < LANES; i++) x[i] = *(const anywhere *)(wave + i * p->hop + start);
        exchange(x, 8), exchange(x, 4), exchange(x, 2), exchange(x, 1);
        for (int i = 0; i < LANES; i++) *(anywhere *)(tile + (start + i) * p->columns + first) = x[i];
    }
    for (int row = rows; row < p->hop; row++)
        for (int i = 0; i < count; i++) tile[row * p->columns + first + i] = wave[i * p->hop + row];
}

/* Frames of the next sixteen begin with hops that frames of these ended with. */
EVERY_PROCESSOR static void carry(const plan *p, int kept, float *tile) {
    for (int row = 0; row < p->hop; row++, tile += p->columns)
        for (int i = 0; i < kept; i++) tile[i] = tile[i + LANES];
}

/* ``wave`` holds (frames - 1) * hop + n samples, ``out`` is (frames, bands); 0, or 1 without memory. */
int antpitta_band_power(const plan *p, const float *wave, int64_t frames, float *out) {
    size_t bands_size = (p->bands + 1) * sizeof(lanes);
    size_t tile_size = (size_t)p->hop * p->columns * sizeof(float);
    tile_size = (tile_size + sizeof(lanes) - 1) / sizeof(lanes) * sizeof(lanes);
    float *tile = aligned_alloc(sizeof(lanes), tile_size);
    complex *x = aligned_alloc(sizeof(lanes), p->n / 2 * sizeof(complex));
    lanes *bands = aligned_alloc(sizeof(lanes), bands_size);
    int failed = !tile || !x || !bands;
    int kept = p->n / p->hop - 1;
    if (!failed) memset(tile, 0, tile_size), lay_out(p, wave, 0, kept, tile);
    for (int64_t start = 0; !failed && start < frames; start += LANES) {
        int some = frames - start < LANES ? frames - start : LANES;
        lay_out(p, wave + (start + kept) * p->hop, kept, some, tile);
        transform(p, tile, x);
        memset(bands, 0, bands_size);
        share(p, x, bands);
        carry(p, kept, tile);
        for (int i = 0; i < some; i++)
            for (int b = 0; b < p->bands; b++) out[(start + i) * p->bands + b] = bands[b][i];
    }
    free(tile), free(x), free(bands);
    return failed;
}
