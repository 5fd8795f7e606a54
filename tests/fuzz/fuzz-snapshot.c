/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a snapshot: as they are, and with the checksum made to fit, as a broken leader would send
 * them. Refused with a text and without a trace, or taken whole: what was taken is written and read the same.
 */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/sha2.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "raftstore/registry_private.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/snapshot.h"

static void try_bytes(const uint8_t *bytes, size_t size)
{
    struct registry *registry = registry_new(), *empty = registry_new();
    struct err err = {0};
    int r = registry_restore(registry, bytes, size, &err);

    if (r < 0) {
        assert(err.text[0] != '\0');
        fuzz_same_snapshots(registry, empty);
    } else {
        fuzz_snapshot_round_trip(registry);
    }
    registry_free(registry);
    registry_free(empty);
}

/* The record at 'bytes', or NULL; its size with the length before it in *ret_size. */
static Fleet__SnapshotRecord *read_record(const uint8_t *bytes, size_t size, size_t *ret_size)
{
    if (size < 4 || get_be32(bytes) > size - 4)
        return NULL;
    *ret_size = 4 + get_be32(bytes);
    return fleet__snapshot_record__unpack(NULL, *ret_size - 4, bytes + 4);
}

static size_t skip_contents(const uint8_t *bytes, size_t size, uint64_t count)
{
    size_t at = 0, record_size;

    for (; count > 0 && at < size; count--) {
        Fleet__SnapshotRecord *record = read_record(bytes + at, size - at, &record_size);

        if (record == NULL)
            break;
        fleet__snapshot_record__free_unpacked(record, NULL);
        at += record_size;
    }
    return at;
}

static void digest(Fleet__SnapshotHeader *header, const uint8_t *tail, size_t tail_size, uint8_t *ret)
{
    _cleanup_(freep) uint8_t *packed = xmalloc(fleet__snapshot_header__get_packed_size(header) + 1);
    struct sha256_ctx ctx;

    sha256_init(&ctx);
    sha256_update(&ctx, fleet__snapshot_header__pack(header, packed), packed);
    sha256_update(&ctx, tail_size, tail);
    sha256_digest(&ctx, SHA256_DIGEST_SIZE, ret);
}

static void try_with_sum(const uint8_t *bytes, size_t size)
{
    size_t at, tail, head_size;
    Fleet__SnapshotRecord *record = read_record(bytes, size, &at);
    _cleanup_(freep) uint8_t *head = NULL, *all = NULL;
    uint8_t sum[SHA256_DIGEST_SIZE];

    if (record == NULL)
        return;
    if (record->record_case == FLEET__SNAPSHOT_RECORD__RECORD_HEADER) {
        tail = at + skip_contents(bytes + at, size - at, record->header->contents);
        free(record->header->sha256.data);
        record->header->sha256 = (ProtobufCBinaryData){0};
        digest(record->header, bytes + tail, size - tail, sum);
        record->header->sha256 = (ProtobufCBinaryData){.len = sizeof sum, .data = sum};
        head = registry_pack_record(record, &head_size);
        record->header->sha256 = (ProtobufCBinaryData){0};
        all = xmalloc(head_size + size - at);
        memcpy(all, head, head_size);
        memcpy(all + head_size, bytes + at, size - at);
        try_bytes(all, head_size + size - at);
    }
    fleet__snapshot_record__free_unpacked(record, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_bytes(data, size);
    try_with_sum(data, size);
    return 0;
}
