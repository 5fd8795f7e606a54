/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the member file (a first byte of 1: with the digest that they should end in). Refused with a
 * text that names it, or written again for what it says, and then it says the same. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "fleetd/member.h"
#include "raftstore/digest.h"
#include "tests/fuzz/fuzz.h"

static void put(const char *directory, const uint8_t *data, size_t size)
{
    _cleanup_(freep) char *path = xasprintf("%s/member", directory);
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    _cleanup_(strbuf_done) struct strbuf text = {0};
    char sum[DIGEST_TEXT_SIZE];
    int r;

    strbuf_add_bytes(&text, data + 1, size - 1);
    if (data[0] == 1) {
        strbuf_add(&text, "\n");
        digest_text(text.text, text.size, sum);
        strbuf_addf(&text, "digest = %s\n", sum);
    }
    r = fd < 0 ? -errno : file_write_all(fd, text.text, text.size);
    assert(r == 0);
}

static void check_lists(const struct strlist *a, const struct strlist *b)
{
    assert(a->count == b->count);
    for (size_t i = 0; i < a->count; i++)
        assert(streq(a->items[i], b->items[i]));
}

static void check_same(const char *directory, const struct member *member)
{
    struct member again;
    struct err err = {0};
    int r = member_save(directory, member, &err);

    assert(r == 0);
    r = member_load(directory, &again, &err);
    if (r == -EBADMSG) /* It has become too long: each line is written in full. */
        return;
    assert(r == 0);
    assert(memcmp(again.cluster_id, member->cluster_id, sizeof again.cluster_id) == 0);
    assert(again.server_id == member->server_id && streq(again.machine_id, member->machine_id));
    assert(again.removed == member->removed && again.founder == member->founder &&
           again.has_log == member->has_log);
    assert(again.history.recoveries == member->history.recoveries);
    check_lists(&again.peers, &member->peers);
    check_lists(&again.keepers, &member->keepers);
    member_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *base = getenv("TMPDIR");
    _cleanup_(freep) char *directory = xasprintf("%s/fuzz-member.XXXXXX", base != NULL ? base : "/tmp");
    struct member member;
    struct err err = {0};
    int r;

    if (size == 0)
        return 0;
    if (mkdtemp(directory) == NULL)
        abort();
    put(directory, data, size);
    r = member_load(directory, &member, &err);
    assert(r == 0 || ((r == -EBADMSG || r == -EPROTONOSUPPORT) && strstr(err.text, directory) != NULL));
    if (r == 0) {
        check_same(directory, &member);
        member_done(&member);
    }
    r = member_forget(directory, &err);
    assert(r == 0);
    rmdir(directory);
    return 0;
}
