/* SPDX-License-Identifier: Apache-2.0 */
/* Frames out of a stream of bytes that arrives in pieces of any size: a 4-byte big-endian length, then that
 * many bytes. Pure. A length over the limit is refused before memory is taken; a frame that arrives whole is
 * handed out where it lies; of a frame that does not, the rest can be read straight to its place. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADER_SIZE 4u

/* All zero, but for the limit, is a fresh one. */
struct frame_reader {
    size_t limit; /* The owner may change it between frames, also inside on_frame. */
    uint8_t header[FRAME_HEADER_SIZE];
    size_t header_have;
    uint8_t *frame; /* A started frame of 'frame_size' bytes, or NULL. */
    size_t frame_size, frame_have;
};

/* 'bytes' are borrowed for the call. Not 0: stop, and return that. */
typedef int frame_reader_on_frame(const uint8_t *bytes, size_t size, void *data);

void frame_reader_done(struct frame_reader *reader);

/* The place for the missing bytes of a started frame, or NULL if none is started. */
uint8_t *frame_reader_place(const struct frame_reader *reader, size_t *ret_size);

/* Takes the next bytes of the stream; 'bytes' may be what frame_reader_place() returned. -EMSGSIZE: a frame
 * over the limit, the stream is of no use any more; or what on_frame returned. */
int frame_reader_feed(struct frame_reader *reader, const uint8_t *bytes, size_t size,
                      frame_reader_on_frame *on_frame, void *data);

void frame_header_put(uint8_t header[FRAME_HEADER_SIZE], size_t size);
