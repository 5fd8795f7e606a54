/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a unit file whose requirements are read, with and without a name. The limits hold, and say the
 * same either way; and requirements depend on nothing but the serialised text, where that is stable. */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "base/str.h"
#include "tests/fuzz/fuzz.h"
#include "units/name.h"
#include "units/requirements.h"

static size_t total_size(const struct requirements *r)
{
    size_t size = r->has_machine_id ? strlen(r->machine_id) : 0;

    for (size_t i = 0; i < r->machine_of.count; i++)
        size += strlen(r->machine_of.items[i]);
    for (size_t i = 0; i < r->metadata_count; i++)
        for (size_t j = 0; j < r->metadata[i].values.count; j++)
            size += strlen(r->metadata[i].values.items[j]);
    for (size_t i = 0; i < r->conflicts.count; i++)
        size += strlen(r->conflicts.items[i]);
    for (size_t i = 0; i < r->replaces.count; i++)
        size += strlen(r->replaces.items[i]);
    return size;
}

static void assert_same_lists(const struct strlist *a, const struct strlist *b)
{
    assert(a->count == b->count);
    for (size_t i = 0; i < a->count; i++)
        assert(streq(a->items[i], b->items[i]));
}

static void assert_same(const struct requirements *a, const struct requirements *b)
{
    assert(a->has_machine_id == b->has_machine_id && a->global == b->global && a->too_large == b->too_large);
    assert(!a->has_machine_id || streq(a->machine_id, b->machine_id));
    assert_same_lists(&a->machine_of, &b->machine_of);
    assert_same_lists(&a->conflicts, &b->conflicts);
    assert_same_lists(&a->replaces, &b->replaces);
    assert(a->metadata_count == b->metadata_count);
    for (size_t i = 0; i < a->metadata_count; i++)
        assert_same_lists(&a->metadata[i].values, &b->metadata[i].values);
}

static void try_text(const struct unit_file *file, const struct requirements *plain)
{
    _cleanup_(unit_file_freep) struct unit_file *again = NULL;
    _cleanup_(requirements_freep) struct requirements *r = NULL;
    _cleanup_(freep) char *text = NULL;
    size_t size;

    if (unit_file_check(file, NULL) < 0)
        return;
    for (size_t i = 0; i < file->count; i++)
        if (str_has_suffix(file->options[i].value, "\\"))
            return;
    text = unit_file_serialize(file, &size);
    assert(unit_file_parse(text, size, &again, NULL) == 0);
    r = requirements_new(again, NULL);
    assert_same(plain, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(unit_file_freep) struct unit_file *file = NULL;
    _cleanup_(requirements_freep) struct requirements *plain = NULL, *named = NULL;
    struct err err = {0};
    size_t position = 0;

    if (unit_file_parse((const char *)data, size, &file, &err) < 0)
        return 0;
    plain = requirements_new(file, NULL);
    named = requirements_new(file, "prefix@instance.service");
    assert(total_size(plain) <= REQUIREMENTS_SIZE_MAX && total_size(named) <= REQUIREMENTS_SIZE_MAX);
    assert(plain->too_large == named->too_large);
    assert(requirements_check(plain, &err) == 0 || err.text[0] != '\0');
    for (size_t i = 0; i < plain->conflicts.count; i++)
        requirements_glob(plain->conflicts.items[i], "prefix@instance.service");
    while (requirements_next_unknown(file, &position) != NULL)
        ;
    try_text(file, plain);
    return 0;
}
