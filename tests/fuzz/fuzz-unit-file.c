/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a unit file. What parses and passes the check keeps its options when written and read, and its
 * text from the second time on; at once, where no value ends in a backslash (§2.6). */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "base/str.h"
#include "tests/fuzz/fuzz.h"
#include "units/file.h"

static char *parse_and_serialize(const char *text, size_t size, size_t *ret_size)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    int r = unit_file_parse(text, size, &file, NULL);

    assert(r == 0);
    return unit_file_serialize(file, ret_size);
}

/* Parsing never gives a value that ends in white space, but for one newline after a backslash. */
static bool has_backslash_at_end(const struct unit_file *file)
{
    for (size_t i = 0; i < file->count; i++)
        if (str_has_suffix(file->options[i].value, "\\"))
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    _cleanup_(freep) char *first = NULL, *second = NULL, *third = NULL;
    size_t first_size, second_size, third_size;
    struct err err = {0};
    int r = unit_file_parse((const char *)data, size, &file, &err);

    if (r < 0) {
        assert(err.text[0] != '\0' && file == NULL);
        return 0;
    }
    first = unit_file_serialize(file, &first_size);
    assert(strlen(first) == first_size);
    r = unit_file_check(file, &err);
    if (r < 0) {
        assert(err.text[0] != '\0');
        return 0;
    }
    second = parse_and_serialize(first, first_size, &second_size);
    third = parse_and_serialize(second, second_size, &third_size);
    assert(streq(second, third));
    assert(has_backslash_at_end(file) || streq(first, second));
    return 0;
}
