/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever bytes come in a frame: refused with a text, or a message that survives being sent on. */
#include <config.h>

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "raftstore/limits.h"
#include "raftstore/raftwire.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    _cleanup_(freep) uint8_t *again = NULL;
    struct raft_message message, back;
    struct raftwire_piece piece;
    struct err err = {0};
    size_t again_size;

    if (raftwire_decode(bytes, size, &message, &piece, &err) < 0) {
        assert(err.text[0] != '\0');
        return 0;
    }
    if (raftwire_encode(&message, 0, &again, &again_size) >= 0) {
        assert(raftwire_decode(again, again_size, &back, &piece, &err) == 0);
        assert(back.type == message.type);
        raftwire_message_done(&back);
    }
    raftwire_message_done(&message);
    return 0;
}
