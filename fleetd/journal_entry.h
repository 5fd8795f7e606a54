/* SPDX-License-Identifier: Apache-2.0 */
/* One entry of a journal as JSON, in the form that "journalctl -o json" and systemd's
 * JOURNAL_EXPORT_FORMATS.md have: a field is a string; where it is no printable UTF-8, an array of its bytes;
 * an array of these where it is set several times; null where it is too large. Whatever a service writes ends
 * up here, so nothing is believed, and an entry is never larger than its limit: what does not fit any more is
 * null, a message is cut. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#define JOURNAL_FIELD_MAX        4096  /* Bytes of a field, but for the message... */
#define JOURNAL_MESSAGE_MAX      16384 /* ...which is cut there. */
#define JOURNAL_ENTRY_FIELDS_MAX 256

struct journal_entry {
    json_t *json; /* An object; owned by whoever made the entry. */
    size_t size;  /* At least of its text. */
    size_t max;
};

/* 'max': bytes that the text of it may have. */
void journal_entry_init(struct journal_entry *entry, size_t max);

/* Adds "NAME=value" as the journal has it. What has no valid name is left out. */
void journal_entry_add(struct journal_entry *entry, const void *field, size_t size);

/* Adds a field of our own, such as "__CURSOR". */
void journal_entry_set(struct journal_entry *entry, const char *name, const char *value);
