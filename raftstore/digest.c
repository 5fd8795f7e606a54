/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/digest.h"

#include <nettle/sha2.h>

#include "base/hex.h"

_Static_assert(DIGEST_TEXT_SIZE == SHA256_DIGEST_SIZE + 1, "half of it, two digits a byte");

void digest_text(const void *bytes, size_t size, char ret[DIGEST_TEXT_SIZE])
{
    uint8_t sum[SHA256_DIGEST_SIZE / 2];
    struct sha256_ctx ctx;

    sha256_init(&ctx);
    sha256_update(&ctx, size, bytes);
    sha256_digest(&ctx, sizeof sum, sum);
    id_to_hex(sum, sizeof sum, ret);
}
