/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"

static void sink_stderr(int priority, const char *message, const char *const *fields)
{
    fprintf(stderr, "<%d>%s\n", priority, message);
}

/* Process-wide on purpose: a log sink is as global as stderr. */
static log_sink *current_sink = sink_stderr;
static _Atomic bool debug_on; /* Threads log, too. */

void log_set_sink(log_sink *sink)
{
    current_sink = sink != NULL ? sink : sink_stderr;
}

void log_set_debug(bool debug)
{
    debug_on = debug;
}

bool log_debug_on(void)
{
    return debug_on;
}

void log_message(int priority, const char *const *fields, const char *format, ...)
{
    _cleanup_(freep) char *message = NULL;
    va_list ap;

    if (priority == LOG_DEBUG && !debug_on)
        return;
    va_start(ap, format);
    message = xvasprintf(format, ap);
    va_end(ap);
    current_sink(priority, message, fields);
}
