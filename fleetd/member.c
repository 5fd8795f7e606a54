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

#define MEMBER_FILE "member"

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
}

struct loading {
    struct member *member;
    bool cluster, server, machine;
};

static int on_line(void *data, const char *section, const char *key, const char *value)
{
    struct loading *loading = data;
    struct member *member = loading->member;
    uint8_t id[8];

    if (streq(key, "cluster_id")) {
        loading->cluster = id_from_hex(value, member->cluster_id, sizeof member->cluster_id);
    } else if (streq(key, "server_id") && id_from_hex(value, id, sizeof id)) {
        for (size_t i = 0; i < sizeof id; i++)
            member->server_id = member->server_id << 8 | id[i];
        loading->server = member->server_id != 0;
    } else if (streq(key, "machine_id") && strlen(value) < sizeof member->machine_id) {
        strcpy(member->machine_id, value);
        loading->machine = true;
    } else if (streq(key, "founder")) {
        member->founder = streq(value, "yes");
    } else if (streq(key, "removed")) {
        member->removed = streq(value, "yes");
    } else if (streq(key, "peer")) {
        strlist_add(&member->peers, value);
    }
    return 1;
}

int member_load(const char *data_dir, struct member *ret, struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/" MEMBER_FILE, data_dir);
    struct loading loading = {.member = ret};

    *ret = (struct member){0};
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return -ENOENT;
    if (ini_parse(path, on_line, &loading) == 0 && loading.cluster && loading.server && loading.machine)
        return 0;
    member_done(ret);
    return err_set(
        err, -EBADMSG,
        "%s is damaged: it must say cluster_id, server_id and machine_id. Move %s away and join this host "
        "again",
        path, data_dir);
}

int member_save(const char *data_dir, const struct member *member, struct err *err)
{
    _cleanup_(closep) int fd = -1;
    _cleanup_(strbuf_done) struct strbuf text = {0};
    char hex[2 * CLUSTER_ID_SIZE + 1];
    int r;

    id_to_hex(member->cluster_id, sizeof member->cluster_id, hex);
    strbuf_add(
        &text,
        "# Made by fleetd when this host became a member. Do not edit, do not copy to another host.\n");
    strbuf_addf(&text, "cluster_id = %s\nserver_id = %016llx\nmachine_id = %s\nfounder = %s\n", hex,
                (unsigned long long)member->server_id, member->machine_id, member->founder ? "yes" : "no");
    if (member->removed)
        strbuf_addf(&text, "removed = yes\n");
    for (size_t i = 0; i < member->peers.count; i++)
        strbuf_addf(&text, "peer = %s\n", member->peers.items[i]);

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
