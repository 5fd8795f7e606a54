/* SPDX-License-Identifier: Apache-2.0 */
/* sd-bus messages: as much of them as the agent uses. */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/sim/sim-systemd.h"

sd_bus_message *sim_message_new(void)
{
    sd_bus_message *m = NEW0(sd_bus_message);

    m->references = 1;
    return m;
}

sd_bus_message *sd_bus_message_unref(sd_bus_message *m)
{
    if (m == NULL || --m->references > 0)
        return NULL;
    for (size_t i = 0; i < m->count; i++)
        free(m->values[i].text);
    free(m->values);
    free(m->member);
    free(m->path);
    free((char *)m->error.name);
    free((char *)m->error.message);
    free(m);
    return NULL;
}

static void add_value(sd_bus_message *m, char type, const char *text, uint32_t number)
{
    GROW(m->values, m->capacity, m->count + 1);
    m->values[m->count++] = (struct sim_value){type, text != NULL ? xstrdup(text) : NULL, number};
}

void sim_message_add_text(sd_bus_message *m, const char *text)
{
    add_value(m, 's', text, 0);
}

void sim_message_add_number(sd_bus_message *m, uint32_t number)
{
    add_value(m, 'u', NULL, number);
}

int sd_bus_message_new_method_call(sd_bus *bus, sd_bus_message **ret, const char *destination,
                                   const char *path, const char *interface, const char *member)
{
    *ret = sim_message_new();
    (*ret)->member = xstrdup(member);
    (*ret)->path = xstrdup(path);
    return 0;
}

int sd_bus_message_append(sd_bus_message *m, const char *types, ...)
{
    va_list ap;

    va_start(ap, types);
    for (const char *type = types; *type != '\0'; type++) {
        if (*type == 's' || *type == 'o')
            sim_message_add_text(m, va_arg(ap, const char *));
        else
            sim_message_add_number(m, va_arg(ap, uint32_t));
    }
    va_end(ap);
    return 0;
}

int sd_bus_message_open_container(sd_bus_message *m, char type, const char *contents)
{
    return 0;
}

int sd_bus_message_close_container(sd_bus_message *m)
{
    return 0;
}

static bool read_one(sd_bus_message *m, char type, void *to)
{
    struct sim_value *value = &m->values[m->next++];

    if (type == 's' || type == 'o')
        *(const char **)to = value->text != NULL ? value->text : "";
    else
        *(uint32_t *)to = value->number;
    return true;
}

int sd_bus_message_read(sd_bus_message *m, const char *types, ...)
{
    va_list ap;
    int r = 1;

    va_start(ap, types);
    for (const char *type = types; *type != '\0' && r > 0; type++) {
        const char *inner = *type == 'v' ? va_arg(ap, const char *) : NULL;

        if (*type == '(' || *type == ')')
            continue;
        for (const char *each = inner != NULL ? inner : (const char[]){*type, '\0'}; *each != '\0' && r > 0;
             each++) {
            if (*each == '(' || *each == ')')
                continue;
            if (m->next >= m->count)
                r = 0;
            else
                read_one(m, *each, va_arg(ap, void *));
        }
    }
    va_end(ap);
    return r;
}

int sd_bus_message_read_array(sd_bus_message *m, char type, const void **ret, size_t *ret_size)
{
    static uint8_t id[16]; /* Read at once. */

    if (m->next >= m->count)
        return 0;
    memcpy(id, &m->values[m->next++].number, sizeof m->values->number);
    *ret = id;
    *ret_size = sizeof id;
    return 1;
}

int sd_bus_message_skip(sd_bus_message *m, const char *types)
{
    m->next++;
    return 1;
}

int sd_bus_message_enter_container(sd_bus_message *m, char type, const char *contents)
{
    return type == 'a' || m->next < m->count;
}

int sd_bus_message_exit_container(sd_bus_message *m)
{
    return 1;
}

const sd_bus_error *sd_bus_message_get_error(sd_bus_message *m)
{
    return m->failed ? &m->error : NULL;
}

const char *sd_bus_message_get_path(sd_bus_message *m)
{
    return m->path;
}

const char *sd_bus_message_get_sender(sd_bus_message *m)
{
    return ":1.0";
}

int sd_bus_error_get_errno(const sd_bus_error *error)
{
    return EIO;
}

int sd_bus_path_encode(const char *prefix, const char *external, char **ret)
{
    *ret = xasprintf("%s/%s", prefix, external);
    return 0;
}

int sd_bus_path_decode(const char *path, const char *prefix, char **ret)
{
    if (!str_has_prefix(path, prefix))
        return 0;
    *ret = xstrdup(path + strlen(prefix) + 1);
    return 1;
}
