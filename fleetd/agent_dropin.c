/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/agent_dropin.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "fleetd/agent_files.h"

#define FILE_NAME "50-fleet.conf"
#define HEADER    "# Made by fleetd. token=%" PRIu64 " stop_ms=%" PRIu64 "\n"

static char *folder_of(const char *directory, const char *unit)
{
    return xasprintf("%s/%s.d", directory, unit);
}

struct agent_dropin agent_dropin_read(const char *directory, const char *unit)
{
    _cleanup_(freep) char *folder = folder_of(directory, unit), *path = xasprintf("%s/" FILE_NAME, folder);
    _cleanup_(fclosep) FILE *f = fopen(path, "re");
    struct agent_dropin dropin = {0};
    char line[128];

    if (f == NULL || fgets(line, sizeof line, f) == NULL ||
        sscanf(line, "# Made by fleetd. token=%" SCNu64 " stop_ms=%" SCNu64, &dropin.token,
               &dropin.stop_ms) != 2)
        return (struct agent_dropin){0};
    return dropin;
}

/* For the kinds that run something. */
static void add_section(struct strbuf *text, const char *unit, const struct agent_dropin *dropin)
{
    static const struct {
        const char *suffix, *section, *timeout;
    } map[] = {
        {".service", "Service", "TimeoutStopSec"},
        {".socket", "Socket", "TimeoutSec"},
        {".mount", "Mount", "TimeoutSec"},
        {".swap", "Swap", "TimeoutSec"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (str_has_suffix(unit, map[i].suffix))
            strbuf_addf(text,
                        "\n[%s]\n%s=%" PRIu64 "ms\nSendSIGKILL=yes\nEnvironment=FLEET_TOKEN=%" PRIu64
                        " FLEET_MACHINE_ID=%%m\n",
                        map[i].section, map[i].timeout, dropin->stop_ms, dropin->token);
}

int agent_dropin_write(const char *directory, const char *unit, const struct agent_dropin *dropin,
                       struct err *err)
{
    _cleanup_(freep) char *folder = folder_of(directory, unit);
    _cleanup_(strbuf_done) struct strbuf text = {0};
    _cleanup_(closep) int fd = -1;
    int r;

    r = file_make_directory(folder);
    if (r < 0)
        return err_set(err, r, "cannot make %s: %s", folder, strerror(-r));
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_set(err, -errno, "cannot open %s: %s", folder, strerror(errno));
    strbuf_addf(&text, HEADER, dropin->token, dropin->stop_ms);
    strbuf_add(&text, "[Unit]\nBindsTo=fleet-lease.service\nAfter=fleet-lease.service\n");
    add_section(&text, unit, dropin);
    return agent_files_write(fd, FILE_NAME, text.text, text.size, false, err);
}

int agent_dropin_remove(const char *directory, const char *unit, struct err *err)
{
    _cleanup_(freep) char *folder = folder_of(directory, unit), *path = xasprintf("%s/" FILE_NAME, folder);

    if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
        return err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
    rmdir(folder); /* Unless somebody else has put something there. */
    return 0;
}
