/* SPDX-License-Identifier: Apache-2.0 */
/* Two lines, a pattern and a name: the glob says what a slow matcher says that tries everything, straight
 * from the description of Go's path.Match. Names with a slash are no names. */
#include <config.h>

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "tests/fuzz/fuzz.h"
#include "units/requirements.h"
#include "units/text.h"

#define SIZE_LIMIT 40

/* Reads a character of a class, maybe escaped. Something must follow it: a class ends in ']'. */
static bool read_char(const char **p, uint32_t *ret)
{
    size_t size;

    if (**p == '\0' || **p == '-' || **p == ']' || (**p == '\\' && *++*p == '\0'))
        return false;
    size = text_rune(*p, *p + strlen(*p), ret);
    *p += size;
    return **p != '\0' && !(*ret == 0xfffd && size == 1);
}

/* The class behind '[' at *p. */
static bool class_has(const char **p, uint32_t rune, bool *malformed)
{
    bool negated = **p == '^', has = false;

    *p += negated;
    do {
        uint32_t low, high;

        *malformed = !read_char(p, &low);
        high = low;
        if (!*malformed && **p == '-') {
            ++*p;
            *malformed = !read_char(p, &high);
        }
        if (*malformed)
            return false;
        has = has || (low <= rune && rune <= high);
    } while (**p != ']');
    ++*p;
    return has != negated;
}

static bool matches(const char *p, const char *name)
{
    bool malformed = false;
    uint32_t rune;
    size_t size;

    if (*p == '\0')
        return *name == '\0';
    if (*p == '*') {
        for (const char *rest = name;; rest++) {
            if (matches(p + 1, rest))
                return true;
            if (*rest == '\0')
                return false;
        }
    }
    if (*name == '\0')
        return false;
    size = text_rune(name, name + strlen(name), &rune);
    if (*p == '?')
        return matches(p + 1, name + size);
    if (*p == '[') {
        p++;
        return class_has(&p, rune, &malformed) && !malformed && matches(p, name + size);
    }
    if (*p == '\\')
        p++;
    return *p != '\0' && *p == *name && matches(p + 1, name + 1);
}

/* The slow matcher takes exponential time with many stars. */
static bool is_small(const char *pattern, const char *name)
{
    size_t stars = 0;

    for (const char *p = pattern; *p != '\0'; p++)
        stars += *p == '*';
    return stars <= 4 && strlen(pattern) <= SIZE_LIMIT && strlen(name) <= SIZE_LIMIT;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(freep) char *pattern = xstrndup((const char *)data, size);
    char *name = strchr(pattern, '\n');

    if (name == NULL)
        return 0;
    *name++ = '\0';
    if (strchr(name, '/') != NULL || !is_small(pattern, name))
        return 0;
    assert(requirements_glob(pattern, name) == matches(pattern, name));
    return 0;
}
