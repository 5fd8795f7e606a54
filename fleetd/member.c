/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/member.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ini.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/ini_limits.h"
#include "raftstore/address.h"
#include "raftstore/digest.h"

#define MEMBER_FILE     "member"
#define MEMBER_FORMAT   1u
#define MEMBER_SIZE_MAX (64u * 1024)
#define SUPERSEDED_FILE "superseded"
#define DIGEST_KEY      "digest = "

static void draw(void *to, size_t size)
{
    if (getrandom(to, size, 0) != (ssize_t)size)
        abort();
}

void member_draw_server_id(struct member *member)
{
    do {
        draw(&member->server_id, sizeof member->server_id);
        member->server_id &= INT64_MAX;
    } while (member->server_id == 0);
}

void member_draw_cluster_id(struct member *member)
{
    draw(member->cluster_id, sizeof member->cluster_id);
}

void member_done(struct member *member)
{
    strlist_done(&member->peers);
    strlist_done(&member->keepers);
}

struct loading {
    struct member *member;
    bool cluster, server, machine;
    bool history_id;
    unsigned format; /* 0: of before there were formats. */
    char written_by[64];
};

static int on_line(void *data, const char *section, const char *key, const char *value)
{
    struct loading *loading = data;
    struct member *member = loading->member;
    struct address address;
    uint8_t id[8], keeper[16];

    if (streq(key, "cluster_id")) {
        loading->cluster = id_from_hex(value, member->cluster_id, sizeof member->cluster_id);
    } else if (streq(key, "server_id") && id_from_hex(value, id, sizeof id)) {
        for (size_t i = 0; i < sizeof id; i++)
            member->server_id = member->server_id << 8 | id[i];
        loading->server = member->server_id != 0;
    } else if (streq(key, "machine_id") && strlen(value) < sizeof member->machine_id) {
        strcpy(member->machine_id, value);
        loading->machine = true;
    } else if (streq(key, "format")) {
        loading->format = (unsigned)strtoul(value, NULL, 10);
    } else if (streq(key, "written_by")) {
        snprintf(loading->written_by, sizeof loading->written_by, "%s", value);
    } else if (streq(key, "recoveries")) {
        member->history.recoveries = strtoull(value, NULL, 10);
    } else if (streq(key, "history")) {
        loading->history_id = id_from_hex(value, member->history.id, sizeof member->history.id);
    } else if (streq(key, "has_log")) {
        member->has_log = streq(value, "yes");
    } else if (streq(key, "founder")) {
        member->founder = streq(value, "yes");
    } else if (streq(key, "removed")) {
        member->removed = streq(value, "yes");
    } else if (streq(key, "keeper") && id_from_hex(value, keeper, sizeof keeper)) {
        strlist_add(&member->keepers, value);
    } else if (streq(key, "peer") && address_parse(value, &address, NULL) >= 0) {
        strlist_add(&member->peers, value); /* Earlier versions wrote whatever a leader had said. */
    }
    return 1;
}

/* The file, NUL-terminated; -EBADMSG: it is no text, or too long. */
static int read_text(const char *path, char **ret)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_(freep) char *text = NULL;
    ssize_t n;

    if (fd < 0)
        return -errno;
    text = xmalloc(MEMBER_SIZE_MAX + 1);
    n = read(fd, text, MEMBER_SIZE_MAX + 1);
    if (n < 0)
        return -errno;
    if (n > (ssize_t)MEMBER_SIZE_MAX || memchr(text, '\0', (size_t)n) != NULL)
        return -EBADMSG;
    text[n] = '\0';
    *ret = TAKE_PTR(text);
    return 0;
}

/* Its last line is the digest of all before it. The first build wrote none, and no format. */
static bool is_whole(const char *text, unsigned format)
{
    const char *last = strstr(text, "\n" DIGEST_KEY);
    char sum[DIGEST_TEXT_SIZE], line[sizeof DIGEST_KEY + DIGEST_TEXT_SIZE];

    if (last == NULL)
        return format == 0;
    last++;
    digest_text(text, (size_t)(last - text), sum);
    snprintf(line, sizeof line, DIGEST_KEY "%s\n", sum);
    return format > 0 && streq(last, line);
}

static int check_loaded(const struct loading *loading, const char *text, const char *path,
                        const char *data_dir, struct err *err)
{
    bool has_id = loading->history_id || loading->member->history.recoveries == 0;

    if (!is_whole(text, loading->format))
        return err_set(err, -EBADMSG,
                       "%s is damaged: its checksum does not match. Move %s away and join this host again",
                       path, data_dir);
    if (loading->format > MEMBER_FORMAT)
        return err_set(err, -EPROTONOSUPPORT,
                       "%s has format %u and was written by fleetd %s; this is fleetd " PACKAGE_VERSION
                       ", which knows formats up to %u: install fleetd %s or later",
                       path, loading->format, loading->written_by, MEMBER_FORMAT, loading->written_by);
    if (!loading->cluster || !loading->server || !loading->machine || !has_id)
        return err_set(
            err, -EBADMSG,
            "%s is damaged: it must say cluster_id, server_id and machine_id. Move %s away and join "
            "this host again",
            path, data_dir);
    return 0;
}

int member_load(const char *data_dir, struct member *ret, struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/" MEMBER_FILE, data_dir), *text = NULL;
    struct loading loading = {.member = ret};
    int r = read_text(path, &text);

    *ret = (struct member){0};
    if (r == -ENOENT)
        return r;
    if (r == -EBADMSG)
        return err_set(err, r, "%s is damaged: it is no text. Move %s away and join this host again", path,
                       data_dir);
    if (r < 0)
        return err_set(err, r, "cannot read %s: %s", path, strerror(-r));
    ini_limits_lift(MEMBER_SIZE_MAX + 1);
    (void)ini_parse_string(text, on_line,
                           &loading); /* Whatever is no line of it is missed, or in the digest. */
    r = check_loaded(&loading, text, path, data_dir, err);
    if (r < 0)
        member_done(ret);
    return r;
}

int member_save(const char *data_dir, const struct member *member, struct err *err)
{
    _cleanup_(closep) int fd = -1;
    _cleanup_(strbuf_done) struct strbuf text = {0};
    char hex[2 * CLUSTER_ID_SIZE + 1], history[2 * HISTORY_ID_SIZE + 1], sum[DIGEST_TEXT_SIZE];
    int r;

    id_to_hex(member->cluster_id, sizeof member->cluster_id, hex);
    strbuf_add(
        &text,
        "# Made by fleetd when this host became a member. Do not edit, do not copy to another host.\n");
    strbuf_addf(&text, "format = %u\nwritten_by = " PACKAGE_VERSION "\n", MEMBER_FORMAT);
    strbuf_addf(&text, "cluster_id = %s\nserver_id = %016llx\nmachine_id = %s\nfounder = %s\n", hex,
                (unsigned long long)member->server_id, member->machine_id, member->founder ? "yes" : "no");
    if (member->removed)
        strbuf_addf(&text, "removed = yes\n");
    for (size_t i = 0; i < member->peers.count; i++)
        strbuf_addf(&text, "peer = %s\n", member->peers.items[i]);
    for (size_t i = 0; i < member->keepers.count; i++)
        strbuf_addf(&text, "keeper = %s\n", member->keepers.items[i]);
    if (member->has_log)
        strbuf_add(&text, "has_log = yes\n");
    if (member->history.recoveries > 0) {
        id_to_hex(member->history.id, sizeof member->history.id, history);
        strbuf_addf(&text, "recoveries = %llu\nhistory = %s\n",
                    (unsigned long long)member->history.recoveries, history);
    }
    digest_text(text.text, text.size, sum);
    strbuf_addf(&text, DIGEST_KEY "%s\n", sum);

    if (mkdir(data_dir, 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "cannot make %s: %s", data_dir, strerror(errno));
    fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = fd < 0 ? -errno : file_replace(fd, MEMBER_FILE, text.text, text.size, 0600);
    if (r < 0)
        return err_set(err, r, "cannot write %s/" MEMBER_FILE ": %s", data_dir, strerror(-r));
    return 0;
}

/* Removes the files of a directory but for 'keep' (NULL: none), and with 'deep' also what is in its
 * directories, and these. */
static int empty_directory(int parent, const char *path, const char *keep, bool deep, struct err *err)
{
    int fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    _cleanup_(closedirp) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    struct stat st;
    int r = 0;

    if (dir == NULL)
        return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    while (r >= 0 && (entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;

        if (streq(name, ".") || streq(name, "..") || (keep != NULL && streq(name, keep)) ||
            fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || (S_ISDIR(st.st_mode) && !deep))
            continue;
        if (S_ISDIR(st.st_mode))
            r = empty_directory(fd, name, NULL, false, err);
        if (r >= 0 && unlinkat(fd, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
            r = err_set(err, -errno, "cannot remove %s in %s: %s", name, path, strerror(errno));
    }
    if (r >= 0 && fsync(fd) < 0)
        r = err_set(err, -errno, "cannot write %s: %s", path, strerror(errno));
    return r;
}

int member_forget(const char *data_dir, struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/" MEMBER_FILE, data_dir);
    int r = empty_directory(AT_FDCWD, data_dir, MEMBER_FILE, true, err);

    if (r >= 0 && unlink(path) < 0 && errno != ENOENT)
        r = err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno));
    return r;
}

bool member_is_superseded(const char *data_dir, char **ret)
{
    _cleanup_(freep) char *path = xasprintf("%s/" SUPERSEDED_FILE, data_dir);
    char *text;
    int r = read_text(path, &text);

    if (r == -ENOENT)
        return false;
    if (r < 0) /* Whatever it says, it is there. */
        text = xasprintf("%s is there, and cannot be read: %s", path, strerror(-r));
    text[strcspn(text, "\n")] = '\0';
    *ret = text;
    return true;
}

void member_clear_superseded(const char *data_dir)
{
    _cleanup_(freep) char *path = xasprintf("%s/" SUPERSEDED_FILE, data_dir);

    (void)unlink(path);
}

int member_supersede(const char *data_dir, const char *why, struct err *err)
{
    _cleanup_(closep) int fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(freep) char *text = xasprintf("%s\n", why);
    int r = fd < 0 ? -errno : file_replace(fd, SUPERSEDED_FILE, text, strlen(text), 0600);

    return r < 0 ? err_set(err, r, "cannot write %s/" SUPERSEDED_FILE ": %s", data_dir, strerror(-r)) : 0;
}
