/* SPDX-License-Identifier: Apache-2.0 */
/* A backup, in pieces: the first request takes a snapshot behind a barrier, so that everything is in it that
 * was acknowledged before; further ones fetch it. The snapshot shares the units' contents with the living
 * data, so it costs little while it is held; and it is not held long for somebody who does not come for it.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <nettle/base64.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/times.h"
#include "fleetd/api_backup.h"
#include "fleetd/api_json.h"
#include "fleetd/api_private.h"
#include "raftstore/limits.h"

#define ID_SIZE       8
#define LAST_GRACE_MS 3000u /* For the last piece to be asked for once more. */

struct api_backup {
    char id[2 * ID_SIZE + 1]; /* "": free. */
    struct registry_snapshot *snapshot;
    uint64_t size, until_ms;
};

static void backup_end(struct api *api, struct api_backup *backup)
{
    if (backup->id[0] != '\0')
        registry_snapshot_free((struct registry *)api->backend.registry(api->data), backup->snapshot);
    *backup = (struct api_backup){0};
}

static void backup_keep(struct api *api, struct api_backup *backup, uint64_t ms)
{
    backup->until_ms = api->backend.now_ms(api->data) + ms;
}

static struct api_backup *find(struct api *api, const char *id)
{
    for (size_t i = 0; api->backups != NULL && i < API_BACKUPS_MAX; i++)
        if (streq(api->backups[i].id, id))
            return &api->backups[i];
    return NULL;
}

/* ---- beginning ---- */

static const char *own_hostname(const struct api_request *request)
{
    struct api *api = request->api;
    uint64_t leader = api->backend.leader_id(api->data);
    size_t count;
    const struct registry_machine *const *machines = registry_machines(api_registry(request), &count);

    for (size_t i = 0; i < count; i++)
        if (leader != 0 && machines[i]->server_id == leader)
            return machines[i]->hostname;
    return "";
}

static void set_time(json_t *json)
{
    time_t now = (time_t)(wall_ms() / 1000);
    struct tm tm;
    char text[32];

    gmtime_r(&now, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    api_json_set_text(json, "made", text);
}

static void draw_id(char ret[2 * ID_SIZE + 1])
{
    uint8_t id[ID_SIZE];

    if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id)
        abort();
    id_to_hex(id, sizeof id, ret);
}

void api_backup_get(struct api_request *request)
{
    struct api *api = request->api;
    struct registry *registry = (struct registry *)api_registry(request); /* Only references are counted. */
    struct api_backup *backup;
    char cluster[2 * CLUSTER_ID_SIZE + 1];
    json_t *json;

    if (api->backups == NULL)
        api->backups = xcalloc(API_BACKUPS_MAX, sizeof *api->backups);
    backup = find(api, "");
    if (backup == NULL) {
        api_answer_error(request, 429,
                         "%u backups are being fetched already, which is as many as may be: try again",
                         API_BACKUPS_MAX);
        return;
    }
    draw_id(backup->id);
    backup->snapshot = registry_snapshot_for_backup(registry);
    backup->size = registry_snapshot_size(backup->snapshot);
    backup_keep(api, backup, API_BACKUP_IDLE_MS);
    log_notice("A backup is made for %s", request->peer);

    json = json_object();
    id_to_hex(registry_cluster_id(registry), CLUSTER_ID_SIZE, cluster);
    api_json_set_text(json, "id", backup->id);
    api_json_set_text(json, "cluster", cluster);
    set_time(json);
    api_json_set_text(json, "version", PACKAGE_VERSION);
    api_json_set_text(json, "host", own_hostname(request));
    api_json_set_count(json, "changes", registry_version(registry));
    api_json_set_count(json, "units", registry_unit_count(registry));
    api_json_set_count(json, "contents", backup->snapshot->content_count);
    api_json_set_count(json, "machines", registry_machine_count(registry));
    api_json_set_count(json, "size", backup->size);
    api_answer_json(request, json);
}

/* A backup is never made of what one host knows: there is no stale=yes. */
void api_backup_begin(struct api_request *request, const Fleet__ApiRequest *message)
{
}

/* ---- pieces ---- */

/* Up to API_BACKUP_PIECE_MAX bytes from 'offset' on. */
static size_t copy_piece(const struct registry_snapshot *snapshot, uint64_t offset, uint8_t *to)
{
    size_t done = 0;

    for (size_t i = 0; i < snapshot->count && done < API_BACKUP_PIECE_MAX; i++) {
        const struct registry_piece *piece = &snapshot->pieces[i];
        size_t n;

        if (offset >= piece->size) {
            offset -= piece->size;
            continue;
        }
        n = piece->size - (size_t)offset;
        if (n > API_BACKUP_PIECE_MAX - done)
            n = API_BACKUP_PIECE_MAX - done;
        memcpy(to + done, (const uint8_t *)piece->base + offset, n);
        done += n;
        offset = 0;
    }
    return done;
}

static bool read_offset(const struct api_request *request, const struct api_backup *backup, uint64_t *ret)
{
    const char *text = api_query(request, "offset");
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *ret < backup->size;
}

void api_backup_piece(struct api_request *request, const Fleet__ApiRequest *message)
{
    struct api *api = request->api;
    struct api_backup *backup = find(api, request->name);
    _cleanup_(freep) uint8_t *bytes = NULL;
    _cleanup_(freep) char *text = NULL;
    uint64_t offset;
    size_t size;
    json_t *json;

    if (backup == NULL) {
        api_answer_error(
            request, 404,
            "there is no such backup (any more): it is kept by the leader, while it leads, for %u s "
            "after the last piece",
            API_BACKUP_IDLE_MS / 1000);
        return;
    }
    if (!read_offset(request, backup, &offset)) {
        api_answer_error(request, 400, "offset must say where the piece begins: less than %llu",
                         (unsigned long long)backup->size);
        return;
    }
    bytes = xmalloc(API_BACKUP_PIECE_MAX);
    size = copy_piece(backup->snapshot, offset, bytes);
    text = xmalloc(BASE64_ENCODE_RAW_LENGTH(size) + 1);
    base64_encode_raw(text, size, bytes);
    text[BASE64_ENCODE_RAW_LENGTH(size)] = '\0';
    json = json_object();
    api_json_set_count(json, "offset", offset);
    api_json_set_text(json, "data", text);
    backup_keep(api, backup, offset + size < backup->size ? API_BACKUP_IDLE_MS : LAST_GRACE_MS);
    api_answer_json(request, json);
}

/* ---- time ---- */

void api_backup_tick(struct api *api, uint64_t now_ms)
{
    for (size_t i = 0; api->backups != NULL && i < API_BACKUPS_MAX; i++)
        if (api->backups[i].id[0] != '\0' && now_ms >= api->backups[i].until_ms)
            backup_end(api, &api->backups[i]);
}

uint64_t api_backup_deadline_ms(const struct api *api)
{
    uint64_t first_ms = UINT64_MAX;

    for (size_t i = 0; api->backups != NULL && i < API_BACKUPS_MAX; i++)
        if (api->backups[i].id[0] != '\0' && api->backups[i].until_ms < first_ms)
            first_ms = api->backups[i].until_ms;
    return first_ms;
}

void api_backup_end_all(struct api *api)
{
    for (size_t i = 0; api->backups != NULL && i < API_BACKUPS_MAX; i++)
        backup_end(api, &api->backups[i]);
    free(api->backups);
    api->backups = NULL;
}
