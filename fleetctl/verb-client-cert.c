/* SPDX-License-Identifier: Apache-2.0 */
/* client-cert, list-client-certs, revoke-client-cert: who may use the API from elsewhere, and as what. The
 * private key is made here and goes into one file; nobody else ever sees it. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"
#include "pki/pki.h"

/* ---- list ---- */

LISTING_TEXT_CELL(cell_name, "name")
LISTING_TEXT_CELL(cell_role, "role")
LISTING_TEXT_CELL(cell_state, "state")
LISTING_TEXT_CELL(cell_serial, "serial")

static char *cell_issued(struct ctl *ctl, const json_t *entity)
{
    return listing_moment(entity, "issued");
}

static char *cell_expires(struct ctl *ctl, const json_t *entity)
{
    return listing_moment(entity, "expires");
}

static json_t *to_json(struct ctl *ctl, const json_t *entity)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "name", api_text(entity, "name"), "role",
                     api_text(entity, "role"), "state", api_text(entity, "state"), "serial",
                     api_text(entity, "serial"), "issued",
                     json_integer_value(json_object_get(entity, "issued")), "expires",
                     json_integer_value(json_object_get(entity, "expires")));
}

static const struct listing_field fields[] = {
    {"name", cell_name},       {"role", cell_role},     {"state", cell_state},
    {"expires", cell_expires}, {"serial", cell_serial}, {"issued", cell_issued},
};

static const struct listing certificates = {fields, ARRAY_SIZE(fields), "name,role,state,expires,serial",
                                            to_json};

int verb_list_client_certs(struct ctl *ctl, const struct strlist *args)
{
    _cleanup_(json_decrefp) json_t *list = NULL;
    struct err err = {0};
    int r = listing_check(ctl, &certificates);

    if (r != CTL_EXIT_DONE)
        return r;
    r = ctl_read_all(ctl, "client-certificates", "certificates", true, &list, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving the clients' certificates");
    return listing_print(ctl, &certificates, list);
}

/* ---- revoke ---- */

int verb_revoke_client_cert(struct ctl *ctl, const struct strlist *args)
{
    struct err err = {0};

    for (size_t i = 0; i < args->count; i++) {
        _cleanup_(freep) char *escaped = api_escape(args->items[i]),
                              *path = xasprintf("client-certificates/%s", escaped);
        int r = api_call(ctl->api, "DELETE", path, NULL, 0, NULL, &err);

        if (r < 0)
            return ctl_fail(&err, r, "Error revoking %s", args->items[i]);
        printf("Revoked %s\n", args->items[i]);
        fflush(stdout);
    }
    return CTL_EXIT_DONE;
}

/* ---- make ---- */

/* Where it goes. Made before anything is asked for, so that no certificate is issued in vain. */
struct target {
    char *path; /* NULL: standard output. */
    int fd;
    bool written;
};

static void target_done(struct target *target)
{
    if (target->path != NULL && target->fd >= 0)
        close(target->fd);
    if (target->path != NULL && target->fd >= 0 && !target->written)
        unlink(target->path); /* It was made here, and is empty. */
    free(target->path);
}

static int target_open(const struct options *o, const char *name, struct target *ret, struct err *err)
{
    ret->fd = STDOUT_FILENO;
    if (o->file != NULL && streq(o->file, "-"))
        return 0;
    ret->path = o->file != NULL ? xstrdup(o->file) : xasprintf("%s.pem", name);
    ret->fd = open(ret->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (ret->fd < 0)
        return err_set(err, -errno, "cannot make the file %s: %s", ret->path, strerror(errno));
    return 0;
}

static int write_all(int fd, const void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)bytes + done, size - done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int target_write(struct target *target, const struct pki_blob *key, const json_t *reply,
                        struct err *err)
{
    const char *certificate = api_text(reply, "certificate"), *authorities = api_text(reply, "authorities");
    int r = write_all(target->fd, key->data, key->size);

    if (r >= 0)
        r = write_all(target->fd, certificate, strlen(certificate));
    if (r >= 0)
        r = write_all(target->fd, authorities, strlen(authorities));
    if (r >= 0 && target->path != NULL && fsync(target->fd) < 0)
        r = -errno;
    if (r < 0)
        return err_set(err, r,
                       "cannot write %s: %s. A certificate was issued that nobody has the key of: fleetctl "
                       "revoke-client-cert %s",
                       target->path != NULL ? target->path : "to standard output", strerror(-r),
                       api_text(reply, "serial"));
    target->written = true;
    return 0;
}

static int make_request(struct pki_blob *ret_key, struct pki_blob *ret_request, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob request = {0};
    int r = pki_key_new(&key, err);

    if (r >= 0)
        r = pki_key_to_pem(key, ret_key, err);
    if (r >= 0)
        r = pki_request_new(key, &request, err);
    return r >= 0 ? pki_request_to_pem(&request, ret_request, err) : r;
}

static int ask(struct ctl *ctl, const char *name, const struct pki_blob *request, json_t **ret,
               struct err *err)
{
    _cleanup_(json_decrefp) json_t *body =
        json_pack("{s:s, s:s, s:s}", "name", name, "role", ctl->options.role, "request", request->data);
    int r;

    if (body == NULL)
        return err_set(err, -EINVAL, "what is given is not UTF-8");
    if (ctl->options.ttl != NULL)
        json_object_set_new(body, "ttl", json_string(ctl->options.ttl));
    r = api_call(ctl->api, "POST", "client-certificates", body, 0, ret, err);
    if (r >= 0 && (api_text(*ret, "certificate")[0] == '\0' || api_text(*ret, "authorities")[0] == '\0'))
        return err_set(err, -EBADMSG, "fleetd's answer holds no certificate");
    return r;
}

static void say(const struct target *target, const json_t *reply)
{
    _cleanup_(freep) char *expires = listing_moment(reply, "expires");

    complain(
        "Client %s is %s until %s. On its computer: fleetctl --endpoint https://HOST:49153 --cert-file %s",
        api_text(reply, "name"), api_text(reply, "role"), expires,
        target->path != NULL ? target->path : "FILE");
}

int verb_client_cert(struct ctl *ctl, const struct strlist *args)
{
    const char *name = args->items[0];
    _cleanup_(pki_blob_done) struct pki_blob key = {0}, request = {0};
    _cleanup_(target_done) struct target target = {.fd = -1};
    _cleanup_(json_decrefp) json_t *reply = NULL;
    enum pki_role role;
    struct err err = {0};
    int r;

    if (ctl->options.role == NULL || pki_role_parse(ctl->options.role, &role) < 0 || role == PKI_ROLE_NONE) {
        complain("fleetctl client-cert: --role is admin, operator or viewer");
        return CTL_EXIT_USAGE;
    }
    r = pki_client_name_check(name, &err);
    if (r < 0) {
        complain("fleetctl client-cert: %s", err.text);
        return CTL_EXIT_USAGE;
    }
    r = target_open(&ctl->options, name, &target, &err);
    if (r >= 0)
        r = make_request(&key, &request, &err);
    if (r >= 0)
        r = ask(ctl, name, &request, &reply, &err);
    if (r >= 0)
        r = target_write(&target, &key, reply, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error making a certificate for %s", name);
    say(&target, reply);
    return CTL_EXIT_DONE;
}
