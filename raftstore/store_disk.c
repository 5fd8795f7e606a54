/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "raftstore/offline.h"
#include "raftstore/store_private.h"

#define TURN_MS    1000u
#define IDLE_TURNS 10u
/* If the disks of all voters are low, leadership wanders no faster than this. */
#define AWAY_AGAIN_MS 60000u
/* Beside raft's directory, so that it outlives it. */
#define FOUNDED_NAME "founded"

/* What libraft sets aside when it opens: three segments of 8 MiB, and some more. */
#define ROOM_TO_OPEN_BYTES (32 * DISK_WATCH_MIB)

/* ---- while it runs ---- */

void store_disk_yield_lead(struct store *store)
{
    struct store_disk *disk = &store->disk;

    if (disk->level == DISK_LEVEL_OK || !store->leads || store->closing ||
        uv_now(store->loop) < disk->next_away_ms)
        return;
    disk->next_away_ms = uv_now(store->loop) + AWAY_AGAIN_MS;
    store_handover_begin(store);
}

static void set_level(struct store *store, uint64_t free_bytes)
{
    struct store_disk *disk = &store->disk;
    enum disk_level old = disk->level;

    disk->level = disk_level_next(old, free_bytes);
    (void)disk_level_reason(disk->level, free_bytes, store->directory, &disk->reason);
    if (disk->level == old)
        return;
    if (old == DISK_LEVEL_OK)
        disk->next_away_ms = 0; /* It was well in between. */
    if (disk->level == DISK_LEVEL_OK)
        log_notice("There is room on the disk of %s again", store->directory);
    else
        log_error("%s: writes are refused here until there is room again", disk->reason.text);
}

static void complain_once(struct store_disk_job *job)
{
    if (job->status < 0 && !job->complained)
        log_warn("Cannot look after the disk: %s", job->error.text);
    job->complained = job->status < 0;
}

static void look_work(uv_work_t *work)
{
    struct store *store = work->data;
    struct store_disk *disk = &store->disk;

    disk->look.status = disk_watch_free(store->directory, &disk->free_bytes, &disk->look.error);
}

static void look_done(uv_work_t *work, int status)
{
    struct store *store = work->data;
    struct store_disk *disk = &store->disk;

    disk->look.busy = false;
    complain_once(&disk->look);
    if (store->raft_closed) {
        store_disk_close(store);
        return;
    }
    if (disk->look.status >= 0)
        set_level(store, disk->free_bytes);
    store_disk_yield_lead(store);
}

static void record_work(uv_work_t *work)
{
    struct store *store = work->data;
    struct store_disk *disk = &store->disk;

    disk->record.status = sidefile_write(store->directory, &disk->writing, &disk->record.error);
}

static void record_done(uv_work_t *work, int status)
{
    struct store *store = work->data;
    struct store_disk *disk = &store->disk;

    disk->record.busy = false;
    complain_once(&disk->record);
    if (disk->record.status >= 0)
        disk->written = disk->writing;
    if (store->raft_closed)
        store_disk_close(store);
}

static void begin(struct store *store, struct store_disk_job *job, uv_work_cb work, uv_after_work_cb done)
{
    job->busy = true;
    job->work.data = store;
    uv_queue_work(store->loop, &job->work, work, done);
}

/* What is committed is never cut off again. A tail that is not committed may go at any time, rightly, and
 * must not keep this host from starting after a power cut. Writes nothing if nothing is new. */
static bool record(struct store *store)
{
    struct store_disk *disk = &store->disk;
    raft_index committed = raft_compat_durable_index(&store->raft);
    raft_term term = raft_compat_term(&store->raft);

    if (disk->record.busy || (term == disk->written.term && committed <= disk->written.committed))
        return false;
    disk->writing = disk->written;
    disk->writing.term = term;
    if (committed > disk->written.committed)
        disk->writing.committed = committed;
    begin(store, &disk->record, record_work, record_done);
    return true;
}

/* The free space once a second while something happens, otherwise every few seconds. */
static void on_timer(uv_timer_t *timer)
{
    struct store *store = timer->data;
    struct store_disk *disk = &store->disk;
    bool is_new = record(store) || disk->record.busy;

    if ((++disk->turn % IDLE_TURNS == 0 || is_new || disk->level != DISK_LEVEL_OK) && !disk->look.busy)
        begin(store, &disk->look, look_work, look_done);
}

void store_disk_start(struct store *store)
{
    set_level(store, store->disk.free_bytes);
    uv_timer_start(&store->timer, on_timer, TURN_MS, TURN_MS);
}

/* Each job that ends comes here again. */
void store_disk_close(struct store *store)
{
    struct store_disk *disk = &store->disk;

    if (disk->look.busy || disk->record.busy)
        return;
    if (!disk->is_last) {
        disk->is_last = true;
        if (record(store))
            return;
    }
    store_finish(store);
}

/* ---- before it runs ---- */

/* A directory that was made is there after a power cut, and what was acknowledged in it. */
static int make_directory(const char *parent, const char *path, struct err *err)
{
    _cleanup_(closep) int fd = -1;

    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0 : err_set(err, -errno, "cannot make %s: %s", path, strerror(errno));
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_set(err, -errno, "cannot sync %s: %s", parent, strerror(errno));
    return 0;
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return xstrdup(".");
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

static int make_directories(struct store *store, const struct store_config *config, struct err *err)
{
    _cleanup_(freep) char *parent = parent_of(config->directory);
    int r = make_directory(parent, config->directory, err);

    return r < 0 ? r : make_directory(config->directory, store->directory, err);
}

/* A founder that has lost its log must not found again: two histories would carry the same ids. */
static int check_founder(struct store *store, const struct store_config *config, struct err *err)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", config->directory, FOUNDED_NAME);

    if (!config->bootstrap || store->disk.had_log || access(path, F_OK) < 0)
        return 0;
    return err_set(err, -ESTALE,
                   "this host has founded its cluster already, but the log in %s is gone; wipe %s and let "
                   "this host join again as a new server",
                   store->directory, config->directory);
}

static int remember_founding(const struct store_config *config, struct err *err)
{
    _cleanup_(closep) int fd = -1, directory = open(config->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (directory >= 0)
        fd = openat(directory, FOUNDED_NAME, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fsync(directory) < 0)
        return err_set(err, -errno, "cannot write %s/%s: %s", config->directory, FOUNDED_NAME,
                       strerror(errno));
    return 0;
}

/* What the sidefile notices only as long as it is there itself. */
static int check_log(const struct store *store, const struct store_config *config, struct err *err)
{
    if (!config->has_log || store->disk.had_log)
        return 0;
    return err_set(
        err, -ESTALE,
        "the log in %s is gone, which this host has kept: it might vote twice; move %s away and let "
        "this host join again as a new server",
        store->directory, config->directory);
}

bool store_directory_has_log(const char *directory)
{
    _cleanup_(freep) char *log = xasprintf("%s/" STORE_LOG_DIRECTORY, directory);
    struct sidefile_state state = {0};

    return sidefile_look(log, &state, NULL) >= 0 && state.has_log;
}

int store_check_room(const char *directory, struct err *err)
{
    _cleanup_(freep) char *log = xasprintf("%s/" STORE_LOG_DIRECTORY, directory);
    uint64_t free_bytes;

    if (access(log, F_OK) < 0 || disk_watch_free(log, &free_bytes, NULL) < 0 ||
        free_bytes >= ROOM_TO_OPEN_BYTES)
        return 0; /* Whatever else is wrong, opening it says so. */
    return err_set(err, -ENOSPC, "only %" PRIu64 " MiB are free in %s: free at least %" PRIu64 " MiB",
                   free_bytes / DISK_WATCH_MIB, log, DISK_WATCH_LOW_BYTES / DISK_WATCH_MIB);
}

/* A power cut has come between the steps of a recovery: the rest of them. */
static int finish_recovery(const struct store_config *config, struct err *err)
{
    _cleanup_(freep) char *aside = NULL;
    int r = offline_finish(config->directory, config->cluster_id, config->server_id, &aside, err);

    if (r > 0)
        log_notice("The new log in %s has taken its place%s%s", config->directory,
                   aside != NULL ? "; the old one is " : "", aside != NULL ? aside : "");
    return r;
}

int store_disk_prepare(struct store *store, const struct store_config *config, struct err *err)
{
    struct sidefile_state state = {.server_id = config->server_id};
    struct sidefile file;
    int r = finish_recovery(config, err);

    if (r >= 0)
        r = make_directories(store, config, err);
    memcpy(state.cluster_id, config->cluster_id, sizeof state.cluster_id);
    if (r >= 0)
        r = sidefile_look(store->directory, &state, err);
    if (r < 0)
        return r;
    store->disk.had_metadata = state.has_metadata;
    store->disk.had_log = state.has_log;

    /* Whose it is, before anything in it is touched. */
    r = sidefile_read(store->directory, &file, err);
    if (r >= 0)
        r = sidefile_check_owner(&file, &state, store->directory, err);
    else if (r == -ENOENT)
        r = 0;
    if (r >= 0)
        r = check_founder(store, config, err);
    if (r >= 0)
        r = check_log(store, config, err);
    if (r < 0)
        return r;

    r = disk_watch_keep_ballast(store->directory, err);
    if (r < 0 && r != -ENOSPC)
        return r;
    return disk_watch_free(store->directory, &store->disk.free_bytes, err);
}

int store_disk_check(struct store *store, const struct store_config *config, raft_term term,
                     raft_index last_index, struct err *err)
{
    struct sidefile_state state = {.server_id = config->server_id,
                                   .term = term,
                                   .last_index = last_index,
                                   .has_metadata = store->disk.had_metadata,
                                   .has_log = store->disk.had_log};
    struct sidefile file = {.server_id = config->server_id};
    int r = sidefile_read(store->directory, &file, err);
    bool found = r >= 0;

    memcpy(state.cluster_id, config->cluster_id, sizeof state.cluster_id);
    memcpy(file.cluster_id, config->cluster_id, sizeof file.cluster_id);
    if (r >= 0 || r == -ENOENT)
        r = sidefile_check(found ? &file : NULL, &state, store->directory, err);
    if (r < 0)
        return r;
    store->disk.written = file;
    return config->bootstrap ? remember_founding(config, err) : 0;
}

int store_disk_error(struct store *store, int status, struct err *err)
{
    const char *detail = raft_errmsg(&store->raft), *directory = store->directory;

    if (store->restore_error.text[0] != '\0')
        detail = store->restore_error.text;
    else if (detail[0] == '\0')
        detail = store->io.errmsg[0] != '\0' ? store->io.errmsg : store_raft_text(status);
    if (guard_fired(&store->guard, GUARD_RULE_METADATA_FAILED) > 0)
        return err_set(err, -EIO,
                       "cannot write the term of the log in %s: %s: is the disk read-only or full?",
                       directory, detail);
    if (store->restore_status == -EPROTONOSUPPORT)
        return err_set(err, -EPROTONOSUPPORT, "cannot read the log in %s: %s", directory, detail);
    switch (status) {
    case RAFT_NOSPACE:
        return err_set(err, -ENOSPC,
                       "no room is left on the disk of %s (%s): free at least %" PRIu64
                       " MiB; removing %s/%s gives %" PRIu64 " to begin with",
                       directory, detail, DISK_WATCH_LOW_BYTES / DISK_WATCH_MIB, directory,
                       DISK_WATCH_BALLAST_NAME, DISK_WATCH_BALLAST_BYTES / DISK_WATCH_MIB);
    case RAFT_TOOMANY:
        return err_set(err, -EAGAIN, "cannot use %s: %s; raise the sysctl fs.aio-max-nr", directory, detail);
    case RAFT_CORRUPT:
    case RAFT_MALFORMED:
        return err_set(err, -EBADMSG,
                       "the log in %s is damaged: %s; if the cluster has other voters, wipe it and let this "
                       "host join again as a new server",
                       directory, detail);
    default:
        return err_set(err, -EIO,
                       "cannot load the log in %s: %s; if the disk has lost data, wipe it and let this host "
                       "join again as a new server",
                       directory, detail);
    }
}
