/* SPDX-License-Identifier: Apache-2.0 */
/* Faults of a host's disk and clock for one process, the one that loads this by LD_PRELOAD: every write that
 * is to be on the disk takes longer or fails, reading the log fails, and the wall clock is off. How much is
 * read at each call from a small file that the test writes (faults.py), so that it changes while the process
 * runs.
 *
 * What is slow is what waits for the disk: fsync(), fdatasync(), and libraft's writes, which go through
 * syscall(io_submit). A write that asks not to wait (RWF_NOWAIT) is told that it would have to, as a busy
 * disk does; it is then repeated where waiting is allowed. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define FAULTS_FILE "/etc/lab-faults" /* Not in /run: fleetd starts by itself after a boot. */

/* The file, as it is; all 0: no faults. */
struct faults {
    int32_t sync_ms;
    int32_t clock_s;
    int32_t io_error; /* 1: what is to be on the disk fails. 2: reading the log does. */
    int32_t log_ms; /* Like sync_ms, but of libraft's writes alone: they do not hold up the rest of fleetd. */
};

#define LOG_DIRECTORY "/var/lib/fleet/raft/"

static const struct faults none;
static const struct faults *faults = &none; /* Until the constructor: those of others run before it. */

__attribute__((constructor)) static void faults_open(void)
{
    int fd = open(FAULTS_FILE, O_RDONLY | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, fd, 0);

    /* A program without the faults that its test relies on must not pass for one that stands them. */
    if (map == MAP_FAILED)
        _exit(71);
    close(fd);
    faults = map;
}

static void *next_symbol(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static int32_t sync_ms(void)
{
    return __atomic_load_n(&faults->sync_ms, __ATOMIC_RELAXED);
}

static int32_t log_ms(void)
{
    return sync_ms() + __atomic_load_n(&faults->log_ms, __ATOMIC_RELAXED);
}

static void wait_for_disk(int32_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    while (ms > 0 && nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

static bool fails(int32_t error)
{
    if (__atomic_load_n(&faults->io_error, __ATOMIC_RELAXED) != error)
        return false;
    errno = EIO;
    return true;
}

int fsync(int fd)
{
    int (*real)(int) = next_symbol("fsync");

    wait_for_disk(sync_ms());
    return fails(1) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    int (*real)(int) = next_symbol("fdatasync");

    wait_for_disk(sync_ms());
    return fails(1) ? -1 : real(fd);
}

static bool is_log(int fd)
{
    char link[64], path[256];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    return n > 0 && strncmp(path, LOG_DIRECTORY, sizeof LOG_DIRECTORY - 1) == 0;
}

ssize_t read(int fd, void *to, size_t size)
{
    ssize_t (*real)(int, void *, size_t) = next_symbol("read");
    int before = errno;

    if (fails(2) && is_log(fd)) {
        errno = EIO;
        return -1;
    }
    errno = before;
    return real(fd, to, size);
}

/* The number of a system call and all the arguments that one can have. */
long syscall(long number, ...)
{
    long (*real)(long, ...) = next_symbol("syscall");
    long a[6];
    va_list list;

    va_start(list, number);
    for (unsigned i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_io_submit && fails(1))
        return -1;
    if (number == SYS_io_submit && log_ms() > 0) {
        struct iocb **blocks = (struct iocb **)a[2];

        if (a[1] > 0 && (blocks[0]->aio_rw_flags & RWF_NOWAIT)) {
            errno = EAGAIN;
            return -1;
        }
        wait_for_disk(log_ms());
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int32_t clock_s(void)
{
    return __atomic_load_n(&faults->clock_s, __ATOMIC_RELAXED);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int (*real)(clockid_t, struct timespec *) = next_symbol("clock_gettime");
    int r = real(clock, time);

    if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += clock_s();
    return r;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int (*real)(struct timeval *, void *) = next_symbol("gettimeofday");
    int r = real(now, zone);

    if (r == 0)
        now->tv_sec += clock_s();
    return r;
}

time_t time(time_t *ret)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (ret != NULL)
        *ret = now.tv_sec;
    return now.tv_sec;
}
