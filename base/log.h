/* SPDX-License-Identifier: Apache-2.0 */
/* Messages for the person who reads the journal. A message is one line: what, why, what to do. Fields after
 * it are "KEY=value" strings (journal field names, systemd.journal-fields(7)), ended by NULL. By default
 * messages go to stderr with a syslog priority prefix; fleetd replaces the sink by the journal. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <syslog.h>

typedef void log_sink(int priority, const char *message, const char *const *fields);

void log_set_sink(log_sink *sink); /* NULL: back to stderr. */
void log_set_debug(bool debug);    /* Whether LOG_DEBUG messages are passed on. */
bool log_debug_on(void);

void log_message(int priority, const char *const *fields, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fields as a literal list: log_fields("UNIT=x.service", "FLEET_MACHINE=..."). */
#define log_fields(...) ((const char *const[]){__VA_ARGS__, NULL})

#define log_debug(...)  log_message(LOG_DEBUG, NULL, __VA_ARGS__)
#define log_info(...)   log_message(LOG_INFO, NULL, __VA_ARGS__)
#define log_notice(...) log_message(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_warn(...)   log_message(LOG_WARNING, NULL, __VA_ARGS__)
#define log_error(...)  log_message(LOG_ERR, NULL, __VA_ARGS__)
