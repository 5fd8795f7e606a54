/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of fleet.conf (that of the first fleet, fleet-behaviour.md §5.2, with its pitfalls decided):
 * from a text to pairs of key and value. It knows no key.
 *
 *  - Lines are trimmed. Empty ones and those that begin with "#" or ";" say nothing, whatever they end in.
 *  - A trailing "\" joins the next line; comment lines between joined lines are left out.
 *  - key="value" and key='value' keep blanks, "#" and ";" (no quote of the same kind inside). A comment may
 *    follow. Where anything else follows, the value is an unquoted one, and the quotes are part of it.
 *  - An unquoted value ends at the first "#" or ";", also in the middle of a word.
 *  - Keys are lower-cased; "key: value", which inih would take, is none. */
#pragma once

#include <stddef.h>

#define CONFIG_LINE_MAX (256u * 1024) /* Bytes of one line, with those that "\" joins. */

struct config_text_callbacks {
    /* 'line' is where the pair begins; 'section' is "" before the first [section]. All borrowed. */
    void (*on_pair)(unsigned line, const char *section, const char *key, const char *value, void *data);
    /* A line that is none of all this, and is left out; 'what' is for people. */
    void (*on_mistake)(unsigned line, const char *what, void *data);
};

/* 'text' has 'size' bytes and a NUL behind them. Calls back in the text's order. */
void config_text_parse(const char *text, size_t size, const struct config_text_callbacks *callbacks,
                       void *data);
