/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file. Whatever it is, lines are reported in order and inside the text, and every value that
 * is taken is one that can be written down and read back as the same. */
#include <config.h>

#include <assert.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/config.h"
#include "fleetd/config_text.h"
#include "tests/fuzz/fuzz.h"

struct reader {
    struct config config;
    unsigned line, lines;
};

static void check_line(struct reader *reader, unsigned line)
{
    assert(line >= reader->line && line >= 1 && line <= reader->lines);
    reader->line = line;
}

static void on_pair(unsigned line, const char *section, const char *key, const char *value, void *data)
{
    struct reader *reader = data;
    struct err err = {0};
    int r;

    check_line(reader, line);
    assert(strchr(key, '\n') == NULL && strchr(value, '\n') == NULL && strchr(section, '\n') == NULL);
    r = config_set(&reader->config, key, value, &err);
    assert(r == 0 || err.text[0] != '\0');
}

static void on_mistake(unsigned line, const char *what, void *data)
{
    check_line(data, line);
    assert(*what != '\0');
}

static void check_round_trip(const struct config *config)
{
    struct config copy;

    config_init(&copy);
    for (size_t i = 0; config_key(i) != NULL; i++) {
        const char *name = config_key(i)->name;
        _cleanup_(freep) char *text = config_get(config, name), *again = NULL;

        assert(config_set(&copy, name, text, NULL) == 0);
        again = config_get(&copy, name);
        assert(streq(text, again));
    }
    config_done(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct config_text_callbacks callbacks = {.on_pair = on_pair, .on_mistake = on_mistake};
    _cleanup_(freep) char *text = xmalloc(size + 1);
    struct reader reader = {.lines = 1};

    memcpy(text, data, size);
    text[size] = '\0';
    for (size_t i = 0; i < size; i++)
        reader.lines += text[i] == '\n';
    config_init(&reader.config);
    config_text_parse(text, size, &callbacks, &reader);
    check_round_trip(&reader.config);
    config_done(&reader.config);
    return 0;
}
