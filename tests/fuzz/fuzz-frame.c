/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of bytes on the cluster port. The first byte says in what steps it arrives: the frames must not
 * depend on it. The first frame is taken for a greeting. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "raftstore/frame.h"
#include "raftstore/greeting.h"
#include "raftstore/limits.h"
#include "tests/fuzz/fuzz.h"

struct seen {
    unsigned frames;
    size_t bytes;
    uint32_t sum;
    struct frame_reader reader;
};

static void greet(const uint8_t *bytes, size_t size)
{
    static const struct port_identity identity = {.has_cluster = true, .server_id = 1};
    Fleet__Hello *hello = fleet__hello__unpack(NULL, size, bytes);
    struct err err = {0};

    if (hello == NULL)
        return;
    if (greeting_check_hello(&identity, hello, &err) < 0)
        assert(err.text[0] != '\0');
    fleet__hello__free_unpacked(hello, NULL);
}

static int on_frame(const uint8_t *bytes, size_t size, void *data)
{
    struct seen *seen = data;

    assert(size <= seen->reader.limit);
    if (seen->frames == 0)
        greet(bytes, size);
    seen->frames++;
    seen->bytes += size;
    for (size_t i = 0; i < size; i++)
        seen->sum = seen->sum * 31 + bytes[i];
    seen->reader.limit = FRAME_MAX;
    return 0;
}

static int feed(struct seen *seen, const uint8_t *bytes, size_t size, size_t step)
{
    int r = 0;

    seen->reader.limit = HELLO_FRAME_MAX;
    for (size_t i = 0; i < size && r == 0; i += step)
        r = frame_reader_feed(&seen->reader, bytes + i, size - i < step ? size - i : step, on_frame, seen);
    frame_reader_done(&seen->reader);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct seen steps = {0}, whole = {0};
    int r;

    if (size == 0)
        return 0;
    r = feed(&steps, bytes + 1, size - 1, bytes[0] + 1u);
    assert(r == 0 || r == -EMSGSIZE);
    assert(feed(&whole, bytes + 1, size - 1, size) == r);
    assert(whole.frames == steps.frames && whole.bytes == steps.bytes && whole.sum == steps.sum);
    return 0;
}
