/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "raftstore/address.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "raftstore/limits.h"

static int parse_port(const char *text, int *ret)
{
    int port = 0;

    if (*text == '\0' || strlen(text) > 5)
        return -EINVAL;
    for (; *text != '\0'; text++) {
        if (!isdigit((unsigned char)*text))
            return -EINVAL;
        port = port * 10 + (*text - '0');
    }
    if (port > 65535)
        return -EINVAL;
    *ret = port;
    return 0;
}

/* Where the host ends and the port begins, NULL for no port. Two colons and no brackets: a bare IPv6 address.
 */
static int split(const char *text, const char **ret_host, size_t *ret_size, const char **ret_port)
{
    const char *end, *colon;

    if (text[0] == '[') {
        end = strchr(text, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':'))
            return -EINVAL;
        *ret_host = text + 1;
        *ret_size = end - text - 1;
        *ret_port = end[1] == ':' ? end + 2 : NULL;
        return *ret_size > 0 ? 0 : -EINVAL;
    }
    colon = strchr(text, ':');
    if (colon != NULL && strchr(colon + 1, ':') != NULL)
        colon = NULL;
    *ret_host = text;
    *ret_size = colon != NULL ? (size_t)(colon - text) : strlen(text);
    *ret_port = colon != NULL ? colon + 1 : NULL;
    return 0;
}

int address_parse(const char *text, struct address *ret, struct err *err)
{
    struct address address = {.port = ADDRESS_PORT_DEFAULT};
    const char *host, *port;
    size_t size;

    if (text[0] == '\0' || strlen(text) > ADDRESS_MAX)
        return err_set(err, -EINVAL, "an address is \"host:port\" of 1 to %u bytes", ADDRESS_MAX);
    if (split(text, &host, &size, &port) < 0 || size > ADDRESS_HOST_MAX)
        return err_set(err, -EINVAL, "\"%s\" is no address: \"host:port\" or \"[IPv6]:port\"", text);
    for (size_t i = 0; i < size; i++)
        if (!isgraph((unsigned char)host[i]) || strchr("[]/@\"'\\;#,=", host[i]) != NULL)
            return err_set(err, -EINVAL, "an address has a byte that no host name has");
    if (port != NULL && parse_port(port, &address.port) < 0)
        return err_set(err, -EINVAL, "\"%s\" has no port number of 0 to 65535 after the colon", text);

    memcpy(address.host, host, size);
    *ret = address;
    return 0;
}
