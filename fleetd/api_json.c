/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/api_json.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "raftstore/limits.h"

#define PRINT_FLAGS (JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY)
#define COUNT_MAX   (1ull << 53)

/* ---- reading ---- */

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (memchr(" \t\r\n", text[i], 4) == NULL)
            return false;
    return true;
}

/* An upper bound for the values in 'text', so that a small body cannot become a very large tree. */
static size_t count_values(const char *text, size_t size)
{
    bool quoted = false;
    size_t count = 1;

    for (size_t i = 0; i < size; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && memchr(",[{:", text[i], 4) != NULL)
            count++;
    }
    return count;
}

int api_json_parse(const void *text, size_t size, json_t **ret, struct err *err)
{
    json_error_t error;
    json_t *json;

    if (is_blank(text, size))
        return err_set(err, -EINVAL, "EOF");
    if (count_values(text, size) > API_JSON_VALUES_MAX)
        return err_set(err, -E2BIG, "the body has too many JSON values, the limit is %u",
                       API_JSON_VALUES_MAX);
    /* Integers as reals: a member that nobody asked for may hold a larger one than fits into 64 bits. */
    json = json_loadb(text, size, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK | JSON_DECODE_INT_AS_REAL, &error);
    if (json == NULL)
        return err_set(err, -EINVAL, "line %d, column %d: %s", error.line, error.column, error.text);
    *ret = json;
    return 0;
}

int api_json_parse_object(const void *text, size_t size, json_t **ret, struct err *err)
{
    json_t *json;
    int r = api_json_parse(text, size, &json, err);

    if (r < 0)
        return r;
    if (json_is_null(json))
        json = json_object();
    if (!json_is_object(json)) {
        json_decref(json);
        return err_set(err, -EINVAL, "a JSON object is expected");
    }
    *ret = json;
    return 0;
}

json_t *api_json_get(const json_t *object, const char *key)
{
    json_t *value, *found = NULL;
    const char *name;

    /* Iteration is in document order. */
    json_object_foreach((json_t *)object, name, value)
    {
        if (strcasecmp(name, key) == 0 && !json_is_null(value))
            found = value;
    }
    return found;
}

int api_json_get_string(const json_t *object, const char *key, const char **ret, struct err *err)
{
    const json_t *value = api_json_get(object, key);

    if (value != NULL && !json_is_string(value))
        return err_set(err, -EINVAL, "\"%s\" must be a string", key);
    *ret = value != NULL ? json_string_value(value) : "";
    return 0;
}

int api_json_get_array(const json_t *object, const char *key, const json_t **ret, struct err *err)
{
    const json_t *value = api_json_get(object, key);

    if (value != NULL && !json_is_array(value))
        return err_set(err, -EINVAL, "\"%s\" must be an array", key);
    *ret = value;
    return 0;
}

int api_json_get_bool(const json_t *object, const char *key, bool *ret, struct err *err)
{
    const json_t *value = api_json_get(object, key);

    if (value != NULL && !json_is_boolean(value))
        return err_set(err, -EINVAL, "\"%s\" must be true or false", key);
    *ret = value != NULL && json_is_true(value);
    return 0;
}

bool api_json_is_count(const json_t *value, uint64_t *ret)
{
    double number = json_real_value(value);

    /* What a double cannot hold exactly is nothing that we have ever counted up to. */
    if (!json_is_real(value) || number < 0 || number > COUNT_MAX || number != (double)(uint64_t)number)
        return false;
    *ret = (uint64_t)number;
    return true;
}

int api_json_get_count(const json_t *object, const char *key, uint64_t otherwise, uint64_t *ret,
                       struct err *err)
{
    const json_t *value = api_json_get(object, key);

    *ret = otherwise;
    if (value != NULL && !api_json_is_count(value, ret))
        return err_set(err, -EINVAL, "\"%s\" must be a whole number from 0 to %llu", key, COUNT_MAX);
    return 0;
}

/* ---- writing ---- */

/* Appends the longest piece from 'text' that is UTF-8, or U+FFFD for one byte that is not; returns its bytes.
 * jansson is the judge, so that what we hand to it is what it takes. */
static size_t add_utf8(struct strbuf *to, const char *text)
{
    size_t size = (unsigned char)*text < 0x80 ? 1 : 2;

    for (; size <= 4 && strnlen(text, size) == size; size++) {
        json_t *piece = json_stringn(text, size);

        if (piece == NULL && size > 1)
            continue;
        json_decref(piece);
        strbuf_add_bytes(to, text, size);
        return size;
    }
    strbuf_add(to, "\xef\xbf\xbd");
    return 1;
}

json_t *api_json_text(const char *text)
{
    json_t *json = json_string(text);
    struct strbuf mended = {0};

    if (json != NULL)
        return json;
    while (*text != '\0')
        text += add_utf8(&mended, text);
    json = json_string(mended.text != NULL ? mended.text : "");
    strbuf_done(&mended);
    return json;
}

void api_json_set_text(json_t *object, const char *key, const char *text)
{
    if (text[0] != '\0')
        json_object_set_new(object, key, api_json_text(text));
}

void api_json_set_array(json_t *object, const char *key, json_t *array)
{
    if (json_array_size(array) > 0)
        json_object_set_new(object, key, array);
    else
        json_decref(array);
}

void api_json_set_count(json_t *object, const char *key, uint64_t count)
{
    json_object_set_new(object, key, json_integer((json_int_t)count));
}

size_t api_json_size(const json_t *json)
{
    return json_dumpb(json, NULL, 0, PRINT_FLAGS);
}

/* jansson prints "<", ">" and "&" as they are; outside of strings JSON has none of them. */
static char *escape_markup(const char *text, size_t size, size_t *ret_size)
{
    struct strbuf escaped = {0};

    while (size > 0) {
        size_t plain = 0;

        while (plain < size && memchr("<>&", text[plain], 3) == NULL)
            plain++;
        strbuf_add_bytes(&escaped, text, plain);
        if (plain < size)
            strbuf_addf(&escaped, "\\u%04x", (unsigned char)text[plain++]);
        text += plain;
        size -= plain;
    }
    *ret_size = escaped.size;
    return strbuf_take(&escaped);
}

char *api_json_print(const json_t *json, size_t *ret_size)
{
    size_t size = api_json_size(json);
    _cleanup_(freep) char *text = xmalloc(size + 1);

    json_dumpb(json, text, size, PRINT_FLAGS);
    return escape_markup(text, size, ret_size);
}
