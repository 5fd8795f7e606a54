/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd-logind says of this host's end, and the lock that makes it wait with that: an inhibitor for
 * "shutdown" of the kind "delay" (systemd-inhibit(1), org.freedesktop.login1(5)). It is held from the start
 * on, taken again when logind or the bus was away, and let go of once what waited is done. logind waits for
 * InhibitDelayMaxSec= at most (logind.conf(5)), and then goes on regardless.
 *
 * Where there is no logind nobody can wait: that is said once, at info, and nothing else happens. It is never
 * started because of us. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

struct logind;

struct logind_callbacks {
    /* The host is being shut down ('begins'), and waits for at most 'wait_ms' unless logind_let_go() comes
     * before; 0: it does not wait. Or it is not any more: the shutdown was given up. Never said twice. */
    void (*on_shutdown)(bool begins, uint64_t wait_ms, void *data);
};

/* Never calls back from inside. */
struct logind *logind_new(uv_loop_t *loop, const struct logind_callbacks *callbacks, void *data);

/* The host need not wait any longer, this time. Without meaning where it does not wait. */
void logind_let_go(struct logind *logind);

/* Lets go of everything. 'done' (may be NULL) comes from the loop when nothing is left on it and 'logind' is
 * freed; no other callback comes any more. */
void logind_close(struct logind *logind, void (*done)(void *data), void *data);
