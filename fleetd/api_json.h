/* SPDX-License-Identifier: Apache-2.0 */
/* JSON the way the first fleet read and wrote it (fleet-behaviour.md §4.1): member names match whatever their
 * case, null is the same as absent, what follows the first value is ignored; what is empty is left out of
 * answers, and keys are sorted. Nothing here trusts its input: number of values and depth are bounded. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/err.h"

static inline void api_json_decrefp(json_t **json)
{
    json_decref(*json);
}

/* Parses the first JSON value of a body; the caller owns *ret. -EINVAL with a text ("EOF" where there is
 * none), -E2BIG over API_JSON_VALUES_MAX. */
int api_json_parse(const void *text, size_t size, json_t **ret, struct err *err);

/* As above, for a body that must be an object; null is an empty one. */
int api_json_parse_object(const void *text, size_t size, json_t **ret, struct err *err);

/* The member of this name in any case, the last one if there are several (null counts for none, as if it was
 * not there); NULL if there is none. Borrowed. */
json_t *api_json_get(const json_t *object, const char *key);

/* Typed members. Absent gives "", NULL, false or 'otherwise'; another type -EINVAL and a text. Borrowed. */
int api_json_get_string(const json_t *object, const char *key, const char **ret, struct err *err);
int api_json_get_array(const json_t *object, const char *key, const json_t **ret, struct err *err);
int api_json_get_bool(const json_t *object, const char *key, bool *ret, struct err *err);
int api_json_get_count(const json_t *object, const char *key, uint64_t otherwise, uint64_t *ret,
                       struct err *err);

/* Whether the parsed value is a whole number from 0 to 2^53; *ret is it. */
bool api_json_is_count(const json_t *value, uint64_t *ret);

/* A string of 'text'; what is not UTF-8 in it (a host may report anything) is shown as U+FFFD. */
json_t *api_json_text(const char *text);

/* Sets a member, unless it is empty. Takes over 'array'. */
void api_json_set_text(json_t *object, const char *key, const char *text);
void api_json_set_array(json_t *object, const char *key, json_t *array);
void api_json_set_count(json_t *object, const char *key, uint64_t count); /* Also 0. */

/* How many bytes it will be, but for escapes of markup. */
size_t api_json_size(const json_t *json);

/* The text: compact, keys sorted, "<", ">" and "&" as \u003c and so on. Owned by the caller. */
char *api_json_print(const json_t *json, size_t *ret_size);
