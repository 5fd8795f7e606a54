/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/journal.h"

#define SD_JOURNAL_SUPPRESS_LOCATION /* The place of the sink says nothing. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"

#define FIELDS_MAX 16u

static void sink_stderr(int priority, const char *message, const char *const *fields)
{
    static const char *const words[] = {"EMERG", "ALERT", "CRIT", "ERROR", "WARN", "NOTICE", "INFO", "DEBUG"};

    fprintf(stderr, "%s %s\n", words[priority & 7], message);
}

static void sink_journal(int priority, const char *message, const char *const *fields)
{
    _cleanup_(freep) char *text = xasprintf("MESSAGE=%s", message);
    char level[] = "PRIORITY=0";
    struct iovec iov[FIELDS_MAX + 3];
    int count = 0;

    level[sizeof level - 2] = (char)('0' + (priority & 7));
    iov[count++] = (struct iovec){text, strlen(text)};
    iov[count++] = (struct iovec){level, strlen(level)};
    iov[count++] = (struct iovec){(char *)"SYSLOG_IDENTIFIER=fleetd", strlen("SYSLOG_IDENTIFIER=fleetd")};
    for (unsigned i = 0; fields != NULL && fields[i] != NULL && i < FIELDS_MAX; i++)
        iov[count++] = (struct iovec){(char *)fields[i], strlen(fields[i])};
    if (sd_journal_sendv(iov, count) < 0)
        sink_stderr(priority, message, fields);
}

bool journal_is_stderr(const char *journal_stream)
{
    unsigned long device, inode;
    struct stat st;

    return journal_stream != NULL && sscanf(journal_stream, "%lu:%lu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void journal_open(void)
{
    log_set_sink(journal_is_stderr(getenv("JOURNAL_STREAM")) ? sink_journal : sink_stderr);
}
