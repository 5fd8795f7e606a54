/* SPDX-License-Identifier: Apache-2.0 */
/* What a person gives as a join token. What is taken is one text for one token, but for blanks around it. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "pki/pki.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(freep) char *text = xstrndup((const char *)data, size);
    char again[JOIN_TOKEN_TEXT_SIZE];
    struct join_token token;
    struct err err = {0};
    int r;

    r = join_token_parse(text, &token, &err);
    assert(r == 0 || (r == -EINVAL && err.text[0] != '\0'));
    if (r < 0)
        return 0;
    join_token_format(&token, again);
    assert(strstr(text, again) != NULL);
    return 0;
}
