/* The read bandwidth that C reaches: THREADS threads sum 512 MiB, each its part in a straight line; the best of seven
   tries, in GB/s (10^9 bytes a second). Compile with -O3 -march=native -pthread. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { TRIES = 7, MAX_THREADS = 512, CHAINS = 8 };
static const size_t BYTES = (size_t)512 << 20;

typedef float vector __attribute__((vector_size(64)));

static const vector *numbers;
static size_t n_threads;
static pthread_barrier_t barrier;
static double began[MAX_THREADS], ended[MAX_THREADS], best;
static volatile float sums[MAX_THREADS]; /* so that the compiler cannot leave the reading out */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

static float sum(const vector *x, size_t n) {
    vector chains[CHAINS] = {0}; /* no addition waits for the one before */
    for (size_t i = 0; i + CHAINS <= n; i += CHAINS)
        for (int c = 0; c < CHAINS; c++) chains[c] += x[i + c];
    float total = 0;
    for (int c = 0; c < CHAINS; c++)
        for (int lane = 0; lane < 16; lane++) total += chains[c][lane];
    return total;
}

/* From the first thread's start to the last one's end. */
static void note_speed(void) {
    double start = began[0], end = ended[0];
    for (size_t i = 1; i < n_threads; i++) {
        if (began[i] < start) start = began[i];
        if (ended[i] > end) end = ended[i];
    }
    double speed = BYTES / (end - start) / 1e9;
    if (speed > best) best = speed;
}

static void *read_part(void *argument) {
    size_t me = (size_t)argument, part = BYTES / sizeof(vector) / n_threads;
    for (int try = 0; try < TRIES; try++) {
        pthread_barrier_wait(&barrier);
        began[me] = now();
        sums[me] = sum(numbers + me * part, part);
        ended[me] = now();
        pthread_barrier_wait(&barrier);
        if (me == 0) note_speed(); /* the others wait for it at the next barrier */
    }
    return NULL;
}

int main(int count, char **arguments) {
    n_threads = count > 1 ? strtoul(arguments[1], NULL, 10) : 1;
    if (n_threads < 1 || n_threads > MAX_THREADS) return 2;
    float *memory = aligned_alloc(2 << 20, BYTES);
    if (!memory) return 1;
    madvise(memory, BYTES, MADV_HUGEPAGE); /* as NumPy does for large arrays */
    for (size_t i = 0; i < BYTES / sizeof(float); i++) memory[i] = 1;
    numbers = (const vector *)memory;
    pthread_barrier_init(&barrier, NULL, n_threads);
    for (size_t me = 1; me < n_threads; me++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, read_part, (void *)me)) return 1;
    }
    read_part(0); /* as many threads as said, and no other that would need a core */
    printf("%.2f\n", best);
    return 0;
}
