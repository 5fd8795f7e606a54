/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "pki/pki.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/hex.h"
#include "base/str.h"

#define SCHEME         "fleet://"
#define CLUSTER_DIGITS (2 * PKI_CLUSTER_ID_SIZE)
#define MACHINE_DIGITS 32u
#define NAME_CHARS     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@"

static const char *const role_names[] = {
    [PKI_ROLE_NONE] = "none",
    [PKI_ROLE_VIEWER] = "viewer",
    [PKI_ROLE_OPERATOR] = "operator",
    [PKI_ROLE_ADMIN] = "admin",
};

const char *pki_role_name(enum pki_role role)
{
    assert(role < ARRAY_SIZE(role_names));
    return role_names[role];
}

int pki_role_parse(const char *text, enum pki_role *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(role_names); i++)
        if (streq(text, role_names[i])) {
            *ret = (enum pki_role)i;
            return 0;
        }
    return -EINVAL;
}

int pki_client_name_check(const char *name, struct err *err)
{
    size_t size = strnlen(name, PKI_ID_SIZE);

    if (size == 0 || size >= PKI_ID_SIZE)
        return err_set(err, -EINVAL, "the name of a client has 1 to %u characters", PKI_ID_SIZE - 1);
    if (strspn(name, NAME_CHARS) != size)
        return err_set(err, -EINVAL,
                       "the name of a client consists of letters, digits and \"-_.@\" (without accents)");
    if (strchr("-_.@", name[0]) != NULL)
        return err_set(err, -EINVAL, "the name of a client begins with a letter or a digit");
    return 0;
}

void pki_name_format(const struct pki_name *name, char ret[PKI_URI_SIZE])
{
    char cluster[CLUSTER_DIGITS + 1];
    int n = 0;

    id_to_hex(name->cluster_id, PKI_CLUSTER_ID_SIZE, cluster);
    ret[0] = '\0';
    switch (name->kind) {
    case PKI_NOBODY: break;
    case PKI_MACHINE: n = snprintf(ret, PKI_URI_SIZE, SCHEME "%s/machine/%s", cluster, name->id); break;
    case PKI_CLIENT:
        n = snprintf(ret, PKI_URI_SIZE, SCHEME "%s/client/%s/%s", cluster, name->id,
                     pki_role_name(name->role));
        break;
    case PKI_AUTHORITY: n = snprintf(ret, PKI_URI_SIZE, SCHEME "%s/authority", cluster); break;
    }
    assert(n >= 0 && n < (int)PKI_URI_SIZE);
}

static int parse_cluster(const char *text, uint8_t cluster_id[PKI_CLUSTER_ID_SIZE])
{
    char digits[CLUSTER_DIGITS + 1];

    if (strnlen(text, CLUSTER_DIGITS) != CLUSTER_DIGITS)
        return -EINVAL;
    memcpy(digits, text, CLUSTER_DIGITS);
    digits[CLUSTER_DIGITS] = '\0';
    return id_from_hex(digits, cluster_id, PKI_CLUSTER_ID_SIZE) ? 0 : -EINVAL;
}

/* "NAME/ROLE" */
static int parse_client(const char *text, struct pki_name *name)
{
    const char *slash = strchr(text, '/');

    if (slash == NULL || (size_t)(slash - text) >= sizeof(name->id))
        return -EINVAL;
    memcpy(name->id, text, slash - text);
    name->kind = PKI_CLIENT;
    if (pki_client_name_check(name->id, NULL) < 0 || pki_role_parse(slash + 1, &name->role) < 0 ||
        name->role == PKI_ROLE_NONE)
        return -EINVAL;
    return 0;
}

static int parse_machine(const char *text, struct pki_name *name)
{
    if (strlen(text) != MACHINE_DIGITS || strspn(text, "0123456789abcdef") != MACHINE_DIGITS)
        return -EINVAL;
    memcpy(name->id, text, MACHINE_DIGITS + 1);
    name->kind = PKI_MACHINE;
    return 0;
}

int pki_name_parse(const void *uri, size_t size, struct pki_name *ret)
{
    struct pki_name name = {0};
    char text[PKI_URI_SIZE];
    const char *rest = text + strlen(SCHEME) + CLUSTER_DIGITS;
    int r;

    if (size >= sizeof(text) || memchr(uri, '\0', size) != NULL)
        return -EINVAL;
    memcpy(text, uri, size);
    text[size] = '\0';
    if (!str_has_prefix(text, SCHEME) || parse_cluster(text + strlen(SCHEME), name.cluster_id) < 0)
        return -EINVAL;

    if (streq(rest, "/authority")) {
        name.kind = PKI_AUTHORITY;
        r = 0;
    } else if (str_has_prefix(rest, "/machine/")) {
        r = parse_machine(rest + strlen("/machine/"), &name);
    } else if (str_has_prefix(rest, "/client/")) {
        r = parse_client(rest + strlen("/client/"), &name);
    } else {
        r = -EINVAL;
    }
    if (r == 0)
        *ret = name;
    return r;
}
