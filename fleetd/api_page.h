/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of long lists, and the tokens that name them (fleet-behaviour.md §4.2). A token is URL-safe base64 of
 *
 *     limit  uint16 LE | page  uint16 LE, from 1                    as in the first fleet
 *     limit  uint16 LE | 0     uint16 LE | position  uint64 LE      ours, where the above cannot say it:
 *
 * beyond page 65535, and after a page that was ended early because of its size (API_PAGE_SIZE_MAX bytes). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/err.h"

#define PAGE_LIMIT_MAX     65535u
#define PAGE_LIMIT_DEFAULT 100u

struct api_page {
    uint64_t first, limit; /* The page is the items from 'first' on, at most 'limit'. */
    uint64_t end;          /* Items before this one are on it, or before it. */
    size_t size;           /* Bytes of what is on it. */
    json_t *items;
};

/* Begins the page that 'token' names, the first one for NULL. -EINVAL with the text of §4.2. */
int api_page_begin(struct api_page *page, const char *token, unsigned limit, struct err *err);

/* Whether item number 'index' is to be added next; items come in order, each asked for once. */
int api_page_wants(const struct api_page *page, uint64_t index);

/* Takes over 'item'. */
void api_page_add(struct api_page *page, json_t *item);

/* The object of the page: its items under 'key', and the token of the next one of 'total'. */
json_t *api_page_end(struct api_page *page, const char *key, uint64_t total);
