/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/patience.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include <uv.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"

struct patience {
    char *what;
    uint64_t step_ms;
    uv_thread_t thread;
    uv_mutex_t mutex; /* Over 'over'. */
    uv_cond_t cond;
    bool over;
};

static void ask(const struct patience *p, uint64_t took_ms)
{
    _cleanup_(freep) char *took = duration_format(took_ms - took_ms % 1000);

    sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%" PRIu64 "\nSTATUS=%s (%s)", 3 * p->step_ms * 1000, p->what, took);
}

static void run(void *data)
{
    struct patience *p = data;
    uint64_t begin_ms = now_ms();

    uv_mutex_lock(&p->mutex);
    while (!p->over && now_ms() - begin_ms < PATIENCE_MAX_MS) {
        if (uv_cond_timedwait(&p->cond, &p->mutex, p->step_ms * 1000000) == 0)
            continue;
        ask(p, now_ms() - begin_ms);
    }
    uv_mutex_unlock(&p->mutex);
}

struct patience *patience_new(const char *what, uint64_t step_ms)
{
    struct patience *p;

    if (getenv("NOTIFY_SOCKET") == NULL)
        return NULL;
    p = NEW0(struct patience);
    p->what = xstrdup(what);
    p->step_ms = step_ms;
    uv_mutex_init(&p->mutex);
    uv_cond_init(&p->cond);
    if (uv_thread_create(&p->thread, run, p) != 0)
        abort(); /* No memory, or too many threads: as bad. */
    return p;
}

void patience_free(struct patience *p)
{
    if (p == NULL)
        return;
    uv_mutex_lock(&p->mutex);
    p->over = true;
    uv_cond_signal(&p->cond);
    uv_mutex_unlock(&p->mutex);
    uv_thread_join(&p->thread);
    uv_cond_destroy(&p->cond);
    uv_mutex_destroy(&p->mutex);
    free(p->what);
    free(p);
}
