/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"

void frame_header_put(uint8_t header[FRAME_HEADER_SIZE], size_t size)
{
    header[0] = size >> 24;
    header[1] = size >> 16;
    header[2] = size >> 8;
    header[3] = size;
}

static size_t header_get(const uint8_t header[FRAME_HEADER_SIZE])
{
    return (size_t)header[0] << 24 | (size_t)header[1] << 16 | (size_t)header[2] << 8 | header[3];
}

void frame_reader_done(struct frame_reader *reader)
{
    free(reader->frame);
    reader->frame = NULL;
}

uint8_t *frame_reader_place(const struct frame_reader *reader, size_t *ret_size)
{
    if (reader->frame == NULL)
        return NULL;
    *ret_size = reader->frame_size - reader->frame_have;
    return reader->frame + reader->frame_have;
}

/* Bytes of the header, or of a started frame, taken from 'bytes'. */
static size_t take(uint8_t *to, size_t *have, size_t want, const uint8_t *bytes, size_t size)
{
    size_t n = want - *have < size ? want - *have : size;

    if (n > 0 && bytes != to + *have)
        memcpy(to + *have, bytes, n);
    *have += n;
    return n;
}

/* The started frame is complete: out with it. */
static int finish(struct frame_reader *reader, frame_reader_on_frame *on_frame, void *data)
{
    _cleanup_(freep) uint8_t *frame = TAKE_PTR(reader->frame);

    return on_frame(frame, reader->frame_size, data);
}

int frame_reader_feed(struct frame_reader *reader, const uint8_t *bytes, size_t size,
                      frame_reader_on_frame *on_frame, void *data)
{
    const uint8_t *end = bytes + size;
    int r = 0;

    while (r == 0 && bytes < end) {
        if (reader->frame != NULL) {
            bytes += take(reader->frame, &reader->frame_have, reader->frame_size, bytes, end - bytes);
            if (reader->frame_have == reader->frame_size)
                r = finish(reader, on_frame, data);
            continue;
        }
        bytes += take(reader->header, &reader->header_have, FRAME_HEADER_SIZE, bytes, end - bytes);
        if (reader->header_have < FRAME_HEADER_SIZE)
            break;
        reader->header_have = 0;
        reader->frame_size = header_get(reader->header);
        reader->frame_have = 0;
        if (reader->frame_size > reader->limit)
            return -EMSGSIZE;
        if (reader->frame_size <= (size_t)(end - bytes)) {
            r = on_frame(bytes, reader->frame_size, data);
            bytes += reader->frame_size;
        } else {
            reader->frame = xmalloc(reader->frame_size);
        }
    }
    return r;
}
