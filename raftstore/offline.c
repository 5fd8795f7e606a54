/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/offline.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <raft.h>
#include <raft/uv.h>
#include <uv.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "raftstore/last_words.h"
#include "raftstore/log_view.h"
#include "raftstore/raft_compat.h"
#include "raftstore/raftconf.h"
#include "raftstore/raftnet.h"
#include "raftstore/sidefile.h"
#include "raftstore/store_text.h"

#define LOG_NAME   "raft"
#define ASIDE_NAME "raft.old"
#define ASIDE_MAX  1000u /* Logs that were moved aside, and that nobody has removed. */

/* ---- libraft's disk, without a raft ---- */

struct disk {
    uv_loop_t loop;
    struct raft_io io;
    struct raft_uv_transport transport;
    const char *directory;
    bool done;
    int status;
};

static void on_closed(struct raft_io *io)
{
    struct disk *disk = io->data;

    disk->done = true;
}

/* To be ended with disk_close() whatever comes of it. */
static int disk_open(struct disk *disk, const char *directory, uint64_t server_id, const char *address)
{
    int r;

    *disk = (struct disk){.directory = directory};
    uv_loop_init(&disk->loop);
    raftnet_null_transport(&disk->transport);
    r = raft_uv_init(&disk->io, &disk->loop, directory, &disk->transport);
    if (r != 0)
        return r;
    raft_uv_set_auto_recovery(&disk->io, false); /* These two: as when a store is opened. */
    (void)raft_uv_set_snapshot_compression(&disk->io, false);
    return disk->io.init(&disk->io, server_id, address);
}

static void disk_wait(struct disk *disk)
{
    while (!disk->done && uv_run(&disk->loop, UV_RUN_ONCE) != 0)
        ;
}

static void disk_close(struct disk *disk)
{
    if (disk->io.impl != NULL) {
        disk->done = false;
        disk->io.data = disk;
        disk->io.close(&disk->io, on_closed);
        disk_wait(disk);
        raft_uv_close(&disk->io);
    }
    uv_run(&disk->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&disk->loop); /* libraft 0.15 may leave handles after a failure. */
}

static int disk_error(const struct disk *disk, int status, const char *what, struct err *err)
{
    const char *detail = disk->io.errmsg[0] != '\0' ? disk->io.errmsg : store_raft_text(status);
    int code = status == RAFT_NOSPACE                               ? -ENOSPC
               : status == RAFT_CORRUPT || status == RAFT_MALFORMED ? -EBADMSG
                                                                    : -EIO;

    return err_set(err, code, "cannot %s the log in %s: %s", what, disk->directory, detail);
}

/* ---- reading ---- */

struct loaded {
    raft_term term;
    raft_id voted_for;
    struct raft_snapshot *snapshot;
    raft_index start_index;
    struct raft_entry *entries;
    size_t entry_count;
};

static void loaded_done(struct loaded *loaded)
{
    const void *batch = NULL;

    for (size_t i = 0; i < loaded->entry_count; i++) {
        if (loaded->entries[i].batch != NULL && loaded->entries[i].batch != batch)
            raft_free(loaded->entries[i].batch);
        batch = loaded->entries[i].batch;
    }
    raft_free(loaded->entries);
    if (loaded->snapshot == NULL)
        return;
    for (unsigned i = 0; i < loaded->snapshot->n_bufs; i++)
        raft_free(loaded->snapshot->bufs[i].base);
    raft_free(loaded->snapshot->bufs);
    raft_configuration_close(&loaded->snapshot->configuration);
    raft_free(loaded->snapshot);
}

static void clear_servers(struct offline_log *log)
{
    for (size_t i = 0; i < log->server_count; i++)
        free((char *)log->servers[i].address);
    log->server_count = 0;
}

static void add_server(struct offline_log *log, uint64_t id, const char *address, int role)
{
    log->servers[log->server_count++] =
        (struct store_server){.id = id, .address = xstrdup(address), .role = (enum server_role)role};
}

static int take_configuration(struct offline_log *log, const struct raft_buffer *buf)
{
    struct raftconf configuration;
    int r = raftconf_read(buf->base, buf->len, &configuration);

    if (r < 0)
        return r;
    clear_servers(log);
    for (size_t i = 0; i < configuration.count; i++)
        add_server(log, configuration.servers[i].id, configuration.servers[i].address,
                   configuration.servers[i].role);
    return 0;
}

static int take_snapshot(struct offline_log *log, const struct raft_snapshot *snapshot, struct err *err)
{
    log->last_index = snapshot->index;
    log->last_term = snapshot->term;
    for (unsigned i = 0; i < snapshot->configuration.n && i < RAFT_SERVERS_MAX; i++)
        add_server(log, snapshot->configuration.servers[i].id, snapshot->configuration.servers[i].address,
                   snapshot->configuration.servers[i].role);
    if (snapshot->n_bufs != 1)
        return err_set(err, -EBADMSG, "its snapshot makes no sense");
    return registry_restore(log->registry, snapshot->bufs[0].base, snapshot->bufs[0].len, err);
}

static void note_time(struct offline_log *log, const struct raft_buffer *buf)
{
    uint64_t wall_ms = command_wall_ms(buf->base, buf->len);

    if (wall_ms > log->newest_wall_ms)
        log->newest_wall_ms = wall_ms;
}

static int take_entry(struct offline_log *log, raft_index index, const struct raft_entry *entry,
                      struct err *err)
{
    if (entry->type == RAFT_COMMAND)
        note_time(log, &entry->buf);
    if (index <= log->last_index) /* It is in the snapshot, too. */
        return 0;
    log->last_index = index;
    log->last_term = entry->term;
    if (entry->type == RAFT_COMMAND) {
        (void)registry_apply(log->registry, entry->buf.base, entry->buf.len);
        if (registry_is_behind(log->registry))
            return err_set(err, -EPROTONOSUPPORT,
                           "entry %llu is by a later version of fleet, and this one (" PACKAGE_VERSION
                           ") does not understand it: use the later one",
                           index);
    } else if (entry->type == RAFT_CHANGE && take_configuration(log, &entry->buf) < 0)
        return err_set(err, -EBADMSG, "entry %llu is no configuration", index);
    return 0;
}

static int take_all(struct offline_log *log, const struct loaded *loaded, struct err *err)
{
    int r = 0;

    log->term = loaded->term;
    if (loaded->snapshot != NULL)
        r = take_snapshot(log, loaded->snapshot, err);
    for (size_t i = 0; i < loaded->entry_count && r >= 0; i++)
        r = take_entry(log, loaded->start_index + i, &loaded->entries[i], err);
    return r;
}

static int load(const char *directory, uint64_t server_id, struct offline_log *log, struct err *err)
{
    struct loaded loaded = {0};
    _cleanup_(freep) char *words = xasprintf("died while reading the log in %s: that is damaged", directory);
    struct log_view *view;
    struct disk disk;
    int status, r = log_view_new(directory, &view, err);

    if (r < 0)
        return r;
    last_words_set(words);
    status = disk_open(&disk, log_view_path(view), server_id, "offline:1");
    disk.directory = directory; /* For people. */
    if (status == 0)
        status = disk.io.load(&disk.io, &loaded.term, &loaded.voted_for, &loaded.snapshot,
                              &loaded.start_index, &loaded.entries, &loaded.entry_count);
    last_words_clear();
    if (status != 0) {
        r = disk_error(&disk, status, "read", err);
    } else {
        r = take_all(log, &loaded, err);
        if (r < 0)
            err_prefix(err, r, "cannot read the log in %s", directory);
        loaded_done(&loaded);
    }
    disk_close(&disk);
    log_view_free(view);
    return r;
}

bool offline_is_unfinished(const char *data_dir, const uint8_t cluster_id[CLUSTER_ID_SIZE],
                           uint64_t server_id)
{
    _cleanup_(freep) char *fresh = xasprintf("%s/" OFFLINE_NEW_LOG, data_dir);
    struct sidefile_state state = {.server_id = server_id};
    struct sidefile file;

    memcpy(state.cluster_id, cluster_id, sizeof state.cluster_id);
    return access(fresh, F_OK) >= 0 && sidefile_read(fresh, &file, NULL) >= 0 &&
           sidefile_check_owner(&file, &state, fresh, NULL) >= 0;
}

int offline_read(const char *data_dir, const uint8_t cluster_id[CLUSTER_ID_SIZE], uint64_t server_id,
                 struct offline_log *ret, struct err *err)
{
    const char *name = offline_is_unfinished(data_dir, cluster_id, server_id) ? OFFLINE_NEW_LOG : LOG_NAME;
    _cleanup_(freep) char *directory = xasprintf("%s/%s", data_dir, name);
    struct sidefile_state state = {.server_id = server_id};
    struct offline_log log = {0};
    struct sidefile file;
    bool recorded;
    int r;

    memcpy(state.cluster_id, cluster_id, sizeof state.cluster_id);
    if (access(directory, F_OK) < 0)
        return -errno;
    r = sidefile_look(directory, &state, err);
    if (r < 0)
        return r;
    r = sidefile_read(directory, &file, err);
    recorded = r >= 0;
    if (r < 0 && r != -ENOENT)
        return r;
    r = recorded ? sidefile_check_owner(&file, &state, directory, err) : 0;
    if (r < 0)
        return r;
    if (!state.has_log && !(recorded && file.committed > 0))
        return -ENOENT;
    log.registry = registry_new();
    r = load(directory, server_id, &log, err);
    if (r == -ENOENT) /* There is a log. What else was not there, 'err' says. */
        r = -EIO;
    state.term = log.term;
    state.last_index = log.last_index;
    if (r >= 0)
        r = sidefile_check(recorded ? &file : NULL, &state, directory, err);
    if (r < 0) {
        offline_log_done(&log);
        return r;
    }
    *ret = log;
    return 0;
}

void offline_log_done(struct offline_log *log)
{
    clear_servers(log);
    registry_free(log->registry);
    *log = (struct offline_log){0};
}

/* ---- directories ---- */

static int sync_directory(const char *path, struct err *err)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && fsync(fd) >= 0 ? 0 : err_set(err, -errno, "cannot sync %s: %s", path, strerror(errno));
}

/* libraft's directories hold files only. */
static int remove_directory(const char *path, struct err *err)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;

    if (dir == NULL)
        return errno == ENOENT ? 0 : err_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
    while ((entry = readdir(dir)) != NULL)
        if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..") &&
            unlinkat(dirfd(dir), entry->d_name, 0) < 0)
            return err_set(err, -errno, "cannot remove %s/%s: %s", path, entry->d_name, strerror(errno));
    return rmdir(path) < 0 ? err_set(err, -errno, "cannot remove %s: %s", path, strerror(errno)) : 0;
}

static int make_directory(const char *path, struct err *err)
{
    return mkdir(path, 0700) < 0 ? err_set(err, -errno, "cannot make %s: %s", path, strerror(errno)) : 0;
}

/* ---- writing ---- */

static void on_written(struct raft_io_snapshot_put *request, int status)
{
    struct disk *disk = request->data;

    disk->status = status;
    disk->done = true;
}

static int put_snapshot(struct disk *disk, const struct offline_seed *seed)
{
    struct registry_snapshot *taken = registry_snapshot_new(seed->registry);
    _cleanup_(freep) struct raft_buffer *bufs = xcalloc(taken->count, sizeof *bufs);
    struct raft_snapshot snapshot = {.index = seed->index,
                                     .term = seed->term,
                                     .configuration_index = seed->index,
                                     .bufs = bufs,
                                     .n_bufs = (unsigned)taken->count};
    struct raft_io_snapshot_put request = {.data = disk};
    int status;

    for (size_t i = 0; i < taken->count; i++)
        bufs[i] = (struct raft_buffer){.base = (void *)taken->pieces[i].base, .len = taken->pieces[i].size};
    raft_configuration_init(&snapshot.configuration);
    status = raft_configuration_add(&snapshot.configuration, seed->server_id, seed->address, RAFT_VOTER);
    if (status == 0)
        status = disk->io.snapshot_put(&disk->io, 1, &request, &snapshot, on_written);
    if (status == 0) {
        disk_wait(disk);
        status = disk->status;
    }
    raft_configuration_close(&snapshot.configuration);
    registry_snapshot_free(seed->registry, taken);
    return status;
}

static int write_log(const char *directory, const struct offline_seed *seed, struct err *err)
{
    struct loaded loaded = {0};
    struct disk disk;
    int status = disk_open(&disk, directory, seed->server_id, seed->address), r = 0;

    /* Loading is what makes libraft's disk ready to write. There is nothing yet. */
    if (status == 0)
        status = disk.io.load(&disk.io, &loaded.term, &loaded.voted_for, &loaded.snapshot,
                              &loaded.start_index, &loaded.entries, &loaded.entry_count);
    if (status == 0) {
        loaded_done(&loaded);
        status = disk.io.set_term(&disk.io, seed->term);
    }
    if (status == 0)
        status = put_snapshot(&disk, seed);
    if (status != 0)
        r = disk_error(&disk, status, "write", err);
    disk_close(&disk);
    return r;
}

int offline_write(const char *data_dir, const struct offline_seed *seed, struct err *err)
{
    _cleanup_(freep) char *directory = xasprintf("%s/" OFFLINE_NEW_LOG, data_dir);
    struct sidefile file = {.server_id = seed->server_id, .term = seed->term, .committed = seed->index};
    int r = remove_directory(directory, err);

    assert(seed->index > 0 && seed->term > 0 && seed->server_id != 0);
    memcpy(file.cluster_id, seed->cluster_id, sizeof file.cluster_id);
    if (r >= 0)
        r = make_directory(directory, err);
    if (r >= 0)
        r = write_log(directory, seed, err);
    if (r >= 0) /* Also what tells that it is whole, and whose. */
        r = sidefile_write(directory, &file, err);
    if (r >= 0)
        r = sync_directory(data_dir, err);
    return r;
}

/* ---- taking its place ---- */

static int move_aside(const char *data_dir, const char *path, char **ret, struct err *err)
{
    for (unsigned i = 1; i <= ASIDE_MAX; i++) {
        _cleanup_(freep) char *aside = xasprintf("%s/" ASIDE_NAME "%u", data_dir, i);

        if (access(aside, F_OK) == 0)
            continue;
        if (rename(path, aside) < 0)
            return err_set(err, -errno, "cannot rename %s to %s: %s", path, aside, strerror(errno));
        *ret = TAKE_PTR(aside);
        return sync_directory(data_dir, err);
    }
    return err_set(err, -EEXIST, "%s holds more than %u old logs: remove " ASIDE_NAME "*", data_dir,
                   ASIDE_MAX);
}

int offline_finish(const char *data_dir, const uint8_t cluster_id[CLUSTER_ID_SIZE], uint64_t server_id,
                   char **ret_aside, struct err *err)
{
    _cleanup_(freep) char *fresh = xasprintf("%s/" OFFLINE_NEW_LOG, data_dir);
    _cleanup_(freep) char *place = xasprintf("%s/" LOG_NAME, data_dir), *aside = NULL;
    int r = 0;

    if (!offline_is_unfinished(data_dir, cluster_id, server_id))
        return 0; /* There is none, or it was given up before it held. */
    if (access(place, F_OK) == 0)
        r = move_aside(data_dir, place, &aside, err);
    if (r >= 0 && rename(fresh, place) < 0)
        r = err_set(err, -errno, "cannot rename %s to %s: %s", fresh, place, strerror(errno));
    if (r >= 0)
        r = sync_directory(data_dir, err);
    if (r < 0)
        return r;
    *ret_aside = TAKE_PTR(aside);
    return 1;
}
