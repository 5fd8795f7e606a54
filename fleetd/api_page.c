/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/api_page.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "fleetd/api_json.h"
#include "raftstore/limits.h"

#define TOKEN_SHORT 4
#define TOKEN_LONG  12

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* ---- base64, read as Go's decoder does, with its word about where an error is ---- */

struct decoder {
    const char *text;
    size_t at, size;       /* Of 'text'. */
    uint8_t *to;           /* Only the first 'room' bytes are kept... */
    size_t room, produced; /* ...of so many. */
};

static void put_group(struct decoder *d, const uint8_t group[4], unsigned digit_count)
{
    uint32_t bits = (uint32_t)group[0] << 18 | (uint32_t)group[1] << 12 | (uint32_t)group[2] << 6 | group[3];

    for (unsigned i = 0; i + 1 < digit_count; i++, d->produced++)
        if (d->produced < d->room)
            d->to[d->produced] = (uint8_t)(bits >> (16 - 8 * i));
}

static void skip_newlines(struct decoder *d)
{
    while (d->at < d->size && (d->text[d->at] == '\n' || d->text[d->at] == '\r'))
        d->at++;
}

/* After a '=' in the place of digit 'j'. Returns where the error is, or -1. */
static ssize_t read_padding(struct decoder *d, unsigned j)
{
    if (j < 2)
        return (ssize_t)d->at - 1;
    if (j == 2) {
        skip_newlines(d);
        if (d->at == d->size)
            return (ssize_t)d->size;
        if (d->text[d->at] != '=')
            return (ssize_t)d->at - 1;
        d->at++;
    }
    skip_newlines(d);
    return d->at < d->size ? (ssize_t)d->at : -1;
}

static ssize_t read_group(struct decoder *d)
{
    uint8_t group[4] = {0};
    unsigned j = 0;
    ssize_t wrong;

    while (j < 4) {
        const char *digit;
        char c;

        if (d->at == d->size)
            return j == 0 ? -1 : (ssize_t)(d->at - j);
        c = d->text[d->at++];
        digit = memchr(digits, c, sizeof digits - 1);
        if (digit != NULL) {
            group[j++] = (uint8_t)(digit - digits);
        } else if (c == '=') {
            wrong = read_padding(d, j);
            if (wrong < 0)
                put_group(d, group, j);
            return wrong;
        } else if (c != '\n' && c != '\r') {
            return (ssize_t)d->at - 1;
        }
    }
    put_group(d, group, j);
    return -1;
}

static int decode(const char *text, uint8_t *to, size_t room, size_t *ret_size, struct err *err)
{
    struct decoder d = {.text = text, .size = strlen(text), .to = to, .room = room};

    while (d.at < d.size) {
        ssize_t wrong = read_group(&d);

        if (wrong >= 0)
            return err_set(err, -EINVAL, "illegal base64 data at input byte %zd", wrong);
    }
    *ret_size = d.produced;
    return 0;
}

static void encode(const uint8_t *bytes, size_t size, char *to)
{
    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)bytes[i] << 16;

        bits |= i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0;
        bits |= i + 2 < size ? bytes[i + 2] : 0;
        *to++ = digits[bits >> 18 & 63];
        *to++ = digits[bits >> 12 & 63];
        *to++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        *to++ = i + 2 < size ? digits[bits & 63] : '=';
    }
    *to = '\0';
}

/* ---- tokens ---- */

static uint16_t get_le16(const uint8_t *from)
{
    return (uint16_t)(from[0] | from[1] << 8);
}

static void put_le16(uint8_t *to, uint64_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

static int read_token(const char *token, uint64_t limit, uint64_t *ret_first, struct err *err)
{
    uint8_t bytes[TOKEN_LONG];
    uint64_t position;
    size_t size = 0;
    int r = decode(token, bytes, sizeof bytes, &size, err);

    if (r < 0)
        return r;
    if (size < TOKEN_SHORT)
        return err_set(err, -EINVAL, size == 0 ? "EOF" : "unexpected EOF");
    if (get_le16(bytes) != limit)
        return err_set(err, -EINVAL, "token limit must be %u", (unsigned)limit);
    if (get_le16(bytes + 2) != 0) {
        *ret_first = (uint64_t)(get_le16(bytes + 2) - 1) * limit;
        return 0;
    }
    if (size < TOKEN_LONG)
        return err_set(err, -EINVAL, "token page must be greater than zero");
    memcpy(&position, bytes + TOKEN_SHORT, sizeof position);
    *ret_first = le64toh(position);
    return 0;
}

static void write_token(json_t *page, uint64_t limit, uint64_t position)
{
    uint8_t bytes[TOKEN_LONG] = {0};
    char token[17];
    uint64_t number = position / limit + 1, little = htole64(position);

    put_le16(bytes, limit);
    if (position % limit == 0 && number <= UINT16_MAX) {
        put_le16(bytes + 2, number);
        encode(bytes, TOKEN_SHORT, token);
    } else {
        memcpy(bytes + TOKEN_SHORT, &little, sizeof little);
        encode(bytes, TOKEN_LONG, token);
    }
    api_json_set_text(page, "nextPageToken", token);
}

/* ---- pages ---- */

int api_page_begin(struct api_page *page, const char *token, unsigned limit, struct err *err)
{
    uint64_t first = 0;
    int r;

    if (token != NULL) {
        r = read_token(token, limit, &first, err);
        if (r < 0)
            return r;
    }
    *page = (struct api_page){.first = first, .limit = limit, .end = first, .items = json_array()};
    return 0;
}

int api_page_wants(const struct api_page *page, uint64_t index)
{
    return index == page->end && page->end - page->first < page->limit &&
           (page->size < API_PAGE_SIZE_MAX || page->end == page->first);
}

void api_page_add(struct api_page *page, json_t *item)
{
    page->size += api_json_size(item);
    page->end++;
    json_array_append_new(page->items, item);
}

json_t *api_page_end(struct api_page *page, const char *key, uint64_t total)
{
    json_t *object = json_object();
    uint64_t full = page->first <= total ? page->first + page->limit : UINT64_MAX;

    api_json_set_array(object, key, page->items);
    page->items = NULL;
    if (page->end < total && page->end < full && page->end > page->first)
        write_token(object, page->limit, page->end); /* Ended early because of its size. */
    else if (full <= total) /* So a total that is a multiple of the limit gives an empty page at the end. */
        write_token(object, page->limit, full);
    return object;
}
