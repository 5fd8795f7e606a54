/* SPDX-License-Identifier: Apache-2.0 */
/* What every verb works with: the options, the connection, and the reads that several verbs share. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "fleetctl/api.h"
#include "fleetctl/options.h"

/* As systemctl(1) has them. */
enum ctl_exit {
    CTL_EXIT_DONE = 0,
    CTL_EXIT_FAILED = 1,
    CTL_EXIT_USAGE = 2,
    CTL_EXIT_NOT_ACTIVE = 3,
    CTL_EXIT_NO_UNIT = 4,
    CTL_EXIT_INTERRUPTED = 130, /* 128 and SIGINT, as shells have it. */
};

struct ctl {
    struct options options;
    struct api *api;  /* NULL for a verb that works offline. */
    bool stale;       /* There is no leader: reads are answered from what one host knows. */
    json_t *machines; /* Machine id -> machine; NULL: not asked yet. */
};

void ctl_done(struct ctl *ctl);

/* GETs one object. Without a leader: says so once on stderr, and asks for what this host knows. 'path' may
 * have a query. Errors as api_call(). */
int ctl_read(struct ctl *ctl, const char *path, json_t **ret, struct err *err);

/* All pages of a collection as one array: the items at 'key' of GET 'resource'. 'may_be_stale': as
 * ctl_read(); otherwise a missing leader is -EAGAIN. */
int ctl_read_all(struct ctl *ctl, const char *resource, const char *key, bool may_be_stale, json_t **ret,
                 struct err *err);

/* How a machine is shown (fleet-behaviour.md §1.6.1): "1234abcd.../10.0.0.1", in full with --full; without
 * the address where 'ip' is "". The caller owns it. */
char *ctl_legend(const struct ctl *ctl, const char *machine_id, const char *ip);

/* The machine with this id, as GET /machines has it, or NULL. Asks once, at the first call, and then knows.
 */
const json_t *ctl_machine(struct ctl *ctl, const char *machine_id);

/* Says 'err' and returns CTL_EXIT_FAILED; 'format' comes before it with a ": ", or is NULL. */
int ctl_fail(const struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
