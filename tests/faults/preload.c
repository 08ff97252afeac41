/* Counts the operations of a process that change files below a folder and, at a given count, makes one fail, sends a
 * signal or moves the clock. Loaded by LD_PRELOAD. The fault is described in a file (LAMZOO_FAULTS) that all processes of
 * a run share, so that workers count and fail with their parent. machine.py has the same layout. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT = 0, SIGNAL = 1, FAIL = 2, CLOCK = 3 };
enum { GROWS = 1, OTHER = 2 }; /* refused by a full disk, or only by a read-only folder */

struct state {
    int64_t armed, count, at, action, number, lasting, group, fired, shift, calls, calls_at;
    char folder[1024];
};

static struct state *state;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LAMZOO_FAULTS");
    int fd = path ? (int)syscall(257 /* openat */, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED) state = found;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int below(int at, const char *path) {
    if (!state || !state->armed || !path) return 0;
    size_t length = strlen(state->folder);
    if (path[0] == '/') return strncmp(path, state->folder, length) == 0;
    char link[64], folder[4096];
    if (at == AT_FDCWD) strcpy(link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t got = readlink(link, folder, sizeof folder - 1);
    if (got < 0) return 0;
    folder[got] = 0;
    return strncmp(folder, state->folder, length) == 0;
}

static int open_below(int fd) {
    if (!state || !state->armed) return 0;
    int before = errno;
    int found = below(fd, "");
    errno = before;
    return found;
}

/* Counts an operation and tells whether the fault happens at it. */
static int strikes(int kind) {
    int64_t number = __sync_add_and_fetch(&state->count, 1);
    if (state->action == COUNT) return 0;
    int now = number == state->at;
    if (state->action == FAIL) {
        int later = state->lasting && number > state->at && (kind == GROWS || state->lasting == 2);
        if (now || later) state->fired = 1;
        return now ? (!state->lasting || kind == GROWS || state->lasting == 2) : later;
    }
    return now;
}

static int strike(void) {
    state->fired = 1;
    if (state->action == SIGNAL) {
        pid_t leader = getsid(0); /* leader of the session of this run */
        kill(leader == getpgrp() ? (state->group ? -leader : leader) : getpid(), (int)state->number);
        return 0;
    }
    if (state->action == CLOCK) return 0;
    errno = (int)state->number;
    return -1;
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (open_below(fd) && strikes(GROWS)) {
        size_t half = size / 2;
        if (half && real(fd, data, half) < 0) return -1;
        if (strike()) return -1;
        ssize_t rest = real(fd, (const char *)data + half, size - half);
        return rest < 0 ? rest : (ssize_t)half + rest;
    }
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (open_below(fd) && strikes(GROWS)) {
        if (count && parts[0].iov_len > 1) {
            struct iovec first = {parts[0].iov_base, parts[0].iov_len / 2};
            if (state->action == FAIL && real(fd, &first, 1) < 0) return -1;
        }
        if (strike()) return -1;
    }
    return real(fd, parts, count);
}

static ssize_t write_at(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *data, size_t size,
                        off_t at) {
    if (open_below(fd) && strikes(GROWS)) {
        size_t half = size / 2;
        if (half && real(fd, data, half, at) < 0) return -1;
        if (strike()) return -1;
    }
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return write_at(real, fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return write_at((ssize_t(*)(int, const void *, size_t, off_t))real, fd, data, size, at);
}

#define MODE(flags) ({ mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); \
    mode = va_arg(more, mode_t); va_end(more); } mode; })
#define CHANGES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))

#define OPEN(name)                                                                         \
    int name(const char *path, int flags, ...) {                                           \
        REAL(name);                                                                        \
        mode_t mode = MODE(flags);                                                         \
        if (CHANGES(flags) && below(AT_FDCWD, path) && strikes((flags) & O_CREAT ? GROWS : OTHER) && strike()) return -1; \
        return real(path, flags, mode);                                                    \
    }
#define OPENAT(name)                                                                       \
    int name(int at, const char *path, int flags, ...) {                                   \
        REAL(name);                                                                        \
        mode_t mode = MODE(flags);                                                         \
        if (CHANGES(flags) && below(at, path) && strikes((flags) & O_CREAT ? GROWS : OTHER) && strike()) return -1; \
        return real(at, path, flags, mode);                                                \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

FILE *fopen64(const char *path, const char *mode) {
    REAL(fopen64);
    if (mode[0] != 'r' && below(AT_FDCWD, path) && strikes(GROWS) && strike()) return NULL;
    return real(path, mode);
}

FILE *fopen(const char *path, const char *mode) {
    REAL(fopen);
    if (mode[0] != 'r' && below(AT_FDCWD, path) && strikes(GROWS) && strike()) return NULL;
    return real(path, mode);
}

#define CHECKED(where, kind) if ((where) && strikes(kind) && strike()) return -1

int rename(const char *old, const char *new) {
    REAL(rename);
    CHECKED(below(AT_FDCWD, new), OTHER);
    return real(old, new);
}

int renameat(int from, const char *old, int to, const char *new) {
    REAL(renameat);
    CHECKED(below(to, new), OTHER);
    return real(from, old, to, new);
}

int unlink(const char *path) {
    REAL(unlink);
    CHECKED(below(AT_FDCWD, path), OTHER);
    return real(path);
}

int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    CHECKED(below(at, path), OTHER);
    return real(at, path, flags);
}

int rmdir(const char *path) {
    REAL(rmdir);
    CHECKED(below(AT_FDCWD, path), OTHER);
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    CHECKED(below(AT_FDCWD, path), GROWS);
    return real(path, mode);
}

int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    CHECKED(open_below(fd), OTHER);
    return real(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    CHECKED(open_below(fd), OTHER);
    return real(fd, size);
}

int fsync(int fd) {
    REAL(fsync);
    CHECKED(open_below(fd), GROWS);
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    CHECKED(open_below(fd), GROWS);
    return real(fd);
}

static int64_t shift(void) { return state && state->action == CLOCK && state->fired ? state->shift : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int found = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += shift();
    return found;
}

int gettimeofday(struct timeval *now, void *zone) {
    REAL(gettimeofday);
    int found = real(now, zone);
    if (now) now->tv_sec += shift();
    return found;
}

time_t time(time_t *place) {
    REAL(time);
    time_t now = real(NULL) + shift();
    if (place) *place = now;
    return now;
}
