/* SPDX-License-Identifier: Apache-2.0 */
/* Two lines: a unit name or user's argument, and a text with specifiers. A name that passes the check stays
 * as it is when it is completed, its parts make it up, and its template passes too. */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "tests/fuzz/fuzz.h"
#include "units/name.h"
#include "units/requirements.h"

static void try_valid(const char *name)
{
    _cleanup_(freep) char *mangled = unit_name_mangle(name), *template = unit_name_template(name);
    _cleanup_(freep) char *whole = unit_name_expand(name, "%n"), *again = NULL;
    struct unit_name_parts parts;

    assert(streq(name, mangled));
    assert(streq(name, whole));
    assert(unit_name_split(name, &parts) == 0);
    assert(parts.name_size + strlen(parts.suffix) == strlen(name));
    assert((template != NULL) == unit_name_is_instance(name));
    assert(!unit_name_is_instance(name) || !unit_name_is_template(name));
    if (template != NULL) {
        struct err err = {0};

        /* One '@' is never lost; the name cannot get longer. */
        assert(unit_name_is_template(template));
        assert(unit_name_check(template, &err) == 0);
    }
    again = unit_name_expand(name, parts.has_at ? "%p@%i" : "%p");
    assert(strlen(again) == parts.name_size && strncmp(again, name, parts.name_size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(freep) char *name = xstrndup((const char *)data, size), *mangled = NULL, *text = NULL,
                          *path = NULL;
    char *newline = strchr(name, '\n');
    struct err err = {0};

    if (newline != NULL)
        *newline++ = '\0';
    mangled = unit_name_mangle(name);
    path = unit_name_mangle_path(name);
    assert(strchr(mangled, '/') == NULL);
    assert(str_has_suffix(path, mangled));
    if (newline != NULL) {
        text = unit_name_expand(name, newline);
        requirements_glob(newline, name);
    }
    if (unit_name_check(name, &err) == 0)
        try_valid(name);
    else
        assert(err.text[0] != '\0');
    return 0;
}
