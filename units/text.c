/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "units/text.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

#define RUNE_ERROR 0xfffd

size_t text_rune(const char *p, const char *end, uint32_t *ret)
{
    const unsigned char *s = (const unsigned char *)p;
    size_t left = (size_t)(end - p), size = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* Less is an overlong form. */
    uint32_t rune;

    if (size == 1) {
        *ret = s[0];
        return 1;
    }
    *ret = RUNE_ERROR;
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < size)
        return 1;
    rune = s[0] & (0xffu >> (size + 1));
    for (size_t i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 1;
        rune = rune << 6 | (s[i] & 0x3f);
    }
    if (rune < least[size] || rune > 0x10ffff || (rune >= 0xd800 && rune <= 0xdfff))
        return 1;
    *ret = rune;
    return size;
}

static bool rune_is_space(uint32_t rune)
{
    return (rune >= '\t' && rune <= '\r') || rune == ' ' || rune == 0x85 || rune == 0xa0 || rune == 0x1680 ||
           (rune >= 0x2000 && rune <= 0x200a) || rune == 0x2028 || rune == 0x2029 || rune == 0x202f ||
           rune == 0x205f || rune == 0x3000;
}

size_t text_space(const char *p, const char *end)
{
    uint32_t rune;
    size_t size;

    if (p >= end)
        return 0;
    size = text_rune(p, end, &rune);
    return rune_is_space(rune) ? size : 0;
}

size_t text_space_before(const char *p, const char *end)
{
    /* All white space is encoded in one to three bytes, and no encoding is the tail of another. */
    for (size_t size = 1; size <= 3 && size <= (size_t)(end - p); size++)
        if (text_space(end - size, end) == size)
            return size;
    return 0;
}

void text_trim(const char **p, const char **end)
{
    size_t size;

    while ((size = text_space(*p, *end)) > 0)
        *p += size;
    while ((size = text_space_before(*p, *end)) > 0)
        *end -= size;
}

static void quote_char(struct strbuf *b, const char *p, size_t size, uint32_t rune, char quote)
{
    static const char controls[] = "\a\b\t\n\v\f\r", letters[] = "abtnvfr";
    const char *control = rune != 0 && rune < 0x20 ? strchr(controls, (int)rune) : NULL;

    if (rune == RUNE_ERROR && size == 1 && quote == '\'')
        strbuf_add(b, "\xef\xbf\xbd"); /* A Go rune cannot tell which byte it was. */
    else if (rune == RUNE_ERROR && size == 1)
        strbuf_addf(b, "\\x%02x", (unsigned char)*p);
    else if (control != NULL)
        strbuf_addf(b, "\\%c", letters[control - controls]);
    else if (rune == (uint32_t)quote || rune == '\\')
        strbuf_addf(b, "\\%c", (int)rune);
    else if (rune < 0x20 || rune == 0x7f)
        strbuf_addf(b, "\\x%02x", (unsigned)rune);
    else if ((rune >= 0x80 && rune < 0xa0) || rune == 0xad || (rune > ' ' && rune_is_space(rune)))
        strbuf_addf(b, "\\u%04x", (unsigned)rune);
    else
        strbuf_add_bytes(b, p, size);
}

char *text_quote(const char *s)
{
    const char *end = s + strlen(s);
    struct strbuf b = {0};
    uint32_t rune;

    strbuf_add(&b, "\"");
    for (size_t size; s < end; s += size) {
        size = text_rune(s, end, &rune);
        quote_char(&b, s, size, rune, '"');
    }
    strbuf_add(&b, "\"");
    return strbuf_take(&b);
}

char *text_quote_rune(const char *s)
{
    struct strbuf b = {0};
    uint32_t rune;
    size_t size = text_rune(s, s + strlen(s), &rune);

    strbuf_add(&b, "'");
    quote_char(&b, s, size, rune, '\'');
    strbuf_add(&b, "'");
    return strbuf_take(&b);
}
