/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backup/file.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/times.h"
#include "fleetd/data_lock.h"
#include "fleetd/founding.h"
#include "fleetd/identity.h"
#include "fleetd/member.h"
#include "raftstore/offline.h"

/* ---- this host ---- */

struct self {
    struct identity identity;
    char *address; /* As the others are to dial it. */
    struct member member;
    bool is_member;
};

static void self_done(struct self *self)
{
    identity_done(&self->identity);
    member_done(&self->member);
    free(self->address);
}

static int self_read(const struct config *config, struct self *ret, struct err *err)
{
    struct self self = {0};
    int r = identity_read(config->public_ip, &self.identity, err);

    if (r < 0)
        return r;
    self.address = config_cluster_address(config, self.identity.public_ip);
    r = member_load(config->data_dir, &self.member, err);
    self.is_member = r >= 0;
    if (r >= 0 && !streq(self.member.machine_id, self.identity.machine_id))
        r = err_set(err, -EXDEV, "%s belongs to machine %s, but this one is %s: was the disk copied?",
                    config->data_dir, self.member.machine_id, self.identity.machine_id);
    if (r < 0 && r != -ENOENT) {
        self_done(&self);
        return r;
    }
    *ret = self;
    return 0;
}

static int need_address(const struct self *self, struct err *err)
{
    if (self->address[0] != '\0')
        return 0;
    return err_set(err, -EADDRNOTAVAIL,
                   "this host has no address that others could reach: set cluster_address in fleet.conf");
}

/* Steps 2 to 4 of offline.h. What the member file says afterwards is 'self->member'. */
static int take_up(const struct config *config, struct self *self, char **ret_aside, struct err *err)
{
    int r;

    member_clear_superseded(config->data_dir);
    self->member.founder = false;
    self->member.has_log = true;
    r = member_save(config->data_dir, &self->member, err);
    if (r < 0)
        return r;
    r = offline_finish(config->data_dir, self->member.cluster_id, self->member.server_id, ret_aside, err);
    return r < 0 ? r : 0;
}

static void print_time(const char *what, uint64_t when_ms)
{
    time_t when = (time_t)(when_ms / 1000);
    uint64_t now = wall_ms(), ago_ms = now > when_ms ? now - when_ms : 0;
    _cleanup_(freep) char *ago = duration_format(ago_ms - ago_ms % 1000);
    struct tm tm;
    char text[32];

    if (when_ms == 0) {
        printf("%sunknown: it is in a snapshot\n", what);
        return;
    }
    gmtime_r(&when, &tm);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
    printf("%s%s (%s ago, if the clocks are right)\n", what, text, ago);
}

static void print_amounts(const struct registry *registry)
{
    char cluster[2 * CLUSTER_ID_SIZE + 1];

    id_to_hex(registry_cluster_id(registry), CLUSTER_ID_SIZE, cluster);
    printf("Cluster:        %s\n", cluster);
    printf("Contents:       %zu units, %zu machines, change %" PRIu64 ", recovered %" PRIu64
           " times before\n",
           registry_unit_count(registry), registry_machine_count(registry), registry_version(registry),
           registry_history(registry)->recoveries);
}

/* ---- a majority is gone ---- */

static const struct store_server *own_server(const struct offline_log *log, uint64_t id)
{
    for (size_t i = 0; i < log->server_count; i++)
        if (log->servers[i].id == id)
            return &log->servers[i];
    return NULL;
}

static void print_servers(const struct offline_log *log, enum server_role role, const char *what,
                          uint64_t own)
{
    const char *separator = "";

    printf("%s", what);
    for (size_t i = 0; i < log->server_count; i++)
        if (log->servers[i].role == role) {
            printf("%s%s%s", separator, log->servers[i].address,
                   log->servers[i].id == own ? " (this host)" : "");
            separator = ", ";
        }
    printf("%s\n", *separator == '\0' ? "none" : "");
}

static void print_log(const struct offline_log *log, const struct self *self)
{
    print_amounts(log->registry);
    print_servers(log, SERVER_VOTER, "Voters:         ", self->member.server_id);
    print_servers(log, SERVER_STANDBY, "Standbys:       ", self->member.server_id);
    printf("Log:            term %" PRIu64 ", index %" PRIu64 "\n", log->last_term, log->last_index);
    print_time("Newest change:  ", log->newest_wall_ms);
}

static void print_warning(void)
{
    fputs(
        "\n"
        "This makes the data of this host the whole truth about the cluster, and this host its only voter.\n"
        "\n"
        " - Whatever was acknowledged and is not in the log of this host is LOST. Run --recover-quorum "
        "--show on\n"
        "   every voter and standby that is left, and recover the one with the greatest term, or, of equal "
        "terms,\n"
        "   the greatest index: nobody who is left knows more.\n"
        " - Do it on one host only, and only if a majority of the voters is gone for good. If they come back "
        "while\n"
        "   they cannot reach this host, there are two clusters that each start the same units. Take their "
        "disks\n"
        "   away, or move their data directories.\n"
        " - Other voters and standbys that are left must move their data directory away, and join again. "
        "Hosts that\n"
        "   kept no log come by themselves. Units run on everywhere meanwhile.\n"
        "\n",
        stdout);
}

static int confirm(const struct recovery *how, struct err *err)
{
    char line[16];

    if (how->confirmed)
        return 0;
    if (!isatty(STDIN_FILENO))
        return err_set(err, -ECANCELED, "nothing was changed: say --yes, or run it at a terminal");
    printf("Type \"recover\" to go on: ");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL || !streq(line, "recover\n"))
        return err_set(err, -ECANCELED, "nothing was changed");
    return 0;
}

static int check_quorum(const struct config *config, const struct self *self, const struct offline_log *log,
                        struct err *err)
{
    const struct store_server *own = own_server(log, self->member.server_id);
    _cleanup_(freep) char *why = NULL;
    size_t voters = 0;

    for (size_t i = 0; i < log->server_count; i++)
        voters += log->servers[i].role == SERVER_VOTER;
    if (member_is_superseded(config->data_dir, &why))
        return err_set(err, -EPERM, "this host's data are not to be used: %s", why);
    if (voters == 1 && own != NULL && own->role == SERVER_VOTER)
        return err_set(err, -EALREADY, "there is nothing to recover: this host is the only voter%s",
                       streq(own->address, self->address) ? "" : ", and takes its new address by itself");
    return 0;
}

static void draw(void *to, size_t size)
{
    if (getrandom(to, size, 0) != (ssize_t)size)
        abort();
}

static int renew(const struct config *config, struct self *self, struct offline_log *log, char **ret_aside,
                 struct err *err)
{
    struct registry_renewal renewal = {.history = {.recoveries = self->member.history.recoveries + 1},
                                       .machine_id = self->identity.machine_id};
    struct offline_seed seed = {
        .address = self->address, .index = log->last_index, .term = log->term + 1, .registry = log->registry};
    int r;

    draw(renewal.history.id, sizeof renewal.history.id);
    member_draw_server_id(&self->member); /* Never the old one: who is away knows it as a voter of theirs. */
    renewal.server_id = seed.server_id = self->member.server_id;
    memcpy(seed.cluster_id, self->member.cluster_id, sizeof seed.cluster_id);
    self->member.history = renewal.history;
    registry_renew(log->registry, &renewal);
    r = offline_write(config->data_dir, &seed, err);
    return r < 0 ? r : take_up(config, self, ret_aside, err);
}

/* What a person must know who is about to choose one host by what each of them shows. */
static void print_prospect(const struct config *config, const struct self *self,
                           const struct offline_log *log)
{
    struct err err = {0};
    _cleanup_(freep) char *why = NULL;

    if (member_is_superseded(config->data_dir, &why))
        printf("SUPERSEDED:     do not recover from this host: %s\n", why);
    else if (offline_is_unfinished(config->data_dir, self->member.cluster_id, self->member.server_id))
        printf(
            "INTERRUPTED:    a recovery of this host was begun, holds, and is not finished; this is its log. "
            "Start fleetd\n"
            "                (systemctl start fleetd), or run --recover-quorum without --show: either "
            "finishes it\n");
    else if (check_quorum(config, self, log, &err) < 0)
        printf("Recovery:       %s\n", err.text);
}

/* An earlier one, that was interrupted when it held already. */
static int finish(const struct config *config, const struct self *self, struct err *err)
{
    _cleanup_(freep) char *aside = NULL;
    int r = offline_finish(config->data_dir, self->member.cluster_id, self->member.server_id, &aside, err);

    if (r <= 0)
        return r;
    printf("Done: the recovery of this host that was interrupted is finished.%s%s\n"
           "Start fleetd here (systemctl start fleetd).\n",
           aside != NULL ? " The old log is in " : "", aside != NULL ? aside : "");
    return 1;
}

static int recover_log(const struct config *config, const struct recovery *how, struct self *self,
                       struct offline_log *log, struct err *err)
{
    _cleanup_(freep) char *aside = NULL;
    int r;

    print_log(log, self);
    if (how->only_show) {
        print_prospect(config, self, log);
        return 0;
    }
    r = finish(config, self, err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = check_quorum(config, self, log, err);
    if (r >= 0)
        r = need_address(self, err);
    if (r < 0)
        return r;
    print_warning();
    r = confirm(how, err);
    if (r >= 0)
        r = renew(config, self, log, &aside, err);
    if (r < 0)
        return r;
    printf("\nDone: recovery number %" PRIu64 ". The old log is in %s.\n"
           "Start fleetd here (systemctl start fleetd), then look: fleetctl list-members, list-machines.\n"
           "Machines that are gone are missing until \"fleetctl confirm-lost\" says so; then their units are "
           "placed "
           "anew.\n",
           self->member.history.recoveries, aside != NULL ? aside : "?");
    return 0;
}

int recovery_of_quorum(const struct config *config, const struct recovery *how, struct err *err)
{
    struct self self;
    struct offline_log log;
    int r;

    if (access(config->data_dir, F_OK) < 0 && errno == ENOENT) /* To take its lock would make it. */
        return err_set(err, -ENOENT, "this host belongs to no cluster: there is no %s", config->data_dir);
    r = data_lock(config->data_dir, err);
    if (r >= 0)
        r = self_read(config, &self, err);
    if (r < 0)
        return r;
    if (!self.is_member)
        r = err_set(err, -ENOENT, "this host belongs to no cluster: there is nothing in %s",
                    config->data_dir);
    if (r >= 0) {
        r = offline_read(config->data_dir, self.member.cluster_id, self.member.server_id, &log, err);
        if (r == -ENOENT)
            err_set(
                err, r,
                "this host keeps no copy of the cluster's data: only voters and standbys do. If it is the "
                "last one that is left, restore a backup (--restore)");
        if (r >= 0) {
            r = recover_log(config, how, &self, &log, err);
            offline_log_done(&log);
        }
    }
    self_done(&self);
    return r;
}

/* ---- from a backup ---- */

static int check_no_member(const struct config *config, const struct self *self, struct err *err)
{
    char cluster[2 * CLUSTER_ID_SIZE + 1];

    if (!self->is_member)
        return 0;
    id_to_hex(self->member.cluster_id, sizeof self->member.cluster_id, cluster);
    return err_set(err, -EEXIST,
                   "this host belongs to cluster %s: a backup is restored on a host that belongs to none. If "
                   "that cluster is gone for good, move %s away first",
                   cluster, config->data_dir);
}

static int read_backup(const char *path, struct registry *registry, struct err *err)
{
    _cleanup_(freep) uint8_t *data = NULL;
    struct backup_header header;
    int r = backup_read(path, &header, &data, err);

    if (r < 0)
        return r;
    r = registry_restore(registry, data, (size_t)header.size, err);
    if (r < 0)
        return err_prefix(err, r, "%s", path);
    if (registry_unit_count(registry) != header.units || registry_machine_count(registry) != header.machines)
        return err_set(err, -EBADMSG, "%s does not hold what its header says", path);
    printf("Backup:         %s, made %s by %s (fleet %s)\n", path, header.made,
           header.host[0] != '\0' ? header.host : "a leader", header.version);
    print_amounts(registry);
    return 0;
}

/* The new cluster has an authority of its own. */
static int make_authority(const struct config *config, const struct self *self, uint64_t lifetime_ms,
                          struct pki_blob *ret_certificate, struct pki_blob *ret_key, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    Fleet__RegisterMachine machine = FLEET__REGISTER_MACHINE__INIT;
    struct credentials credentials = {0};
    int r = credentials_load(config->data_dir, &credentials, err);

    if (r < 0)
        return r;
    machine.machine_id = (char *)self->identity.machine_id;
    machine.hostname = self->identity.hostname;
    machine.public_ip = self->identity.public_ip;
    machine.cluster_address = self->address;
    r = founding_certify(&credentials, self->member.cluster_id, &machine, wall_ms(), lifetime_ms, &key, err);
    if (r >= 0)
        r = pki_key_encode(key, ret_key, err);
    if (r >= 0) {
        *ret_certificate = credentials.roots[0];
        credentials.roots[0] = (struct pki_blob){0};
    }
    credentials_done(&credentials);
    return r;
}

static int write_cluster(const struct config *config, struct self *self, struct registry *registry,
                         const Fleet__Authority *authority, char **ret_aside, struct err *err)
{
    struct registry_renewal renewal = {.machine_id = self->identity.machine_id, .authority = authority};
    struct offline_seed seed = {.address = self->address, .index = 1, .term = 1, .registry = registry};
    int r;

    self->member.history = renewal.history;
    renewal.cluster_id = self->member.cluster_id;
    renewal.server_id = seed.server_id = self->member.server_id;
    memcpy(seed.cluster_id, self->member.cluster_id, sizeof seed.cluster_id);
    registry_renew(registry, &renewal);
    r = offline_write(config->data_dir, &seed, err);
    return r < 0 ? r : take_up(config, self, ret_aside, err);
}

static int begin_cluster(const struct config *config, struct self *self, struct registry *registry,
                         char **ret_aside, struct err *err)
{
    Fleet__Authority authority = FLEET__AUTHORITY__INIT;
    struct pki_blob certificate = {0}, key = {0};
    int r = 0;

    member_draw_cluster_id(&self->member);
    member_draw_server_id(&self->member);
    strcpy(self->member.machine_id, self->identity.machine_id);
    if (!config->insecure)
        r = make_authority(config, self, registry_setting_number(registry, SETTING_CERTIFICATE_LIFETIME),
                           &certificate, &key, err);
    authority.certificate = (ProtobufCBinaryData){.len = certificate.size, .data = certificate.data};
    authority.private_key = (ProtobufCBinaryData){.len = key.size, .data = key.data};
    if (r >= 0)
        r = write_cluster(config, self, registry, config->insecure ? NULL : &authority, ret_aside, err);
    pki_blob_done(&certificate);
    pki_blob_done(&key);
    return r;
}

static int restore(const struct config *config, const char *path, struct self *self,
                   struct registry *registry, struct err *err)
{
    _cleanup_(freep) char *aside = NULL;
    char cluster[2 * CLUSTER_ID_SIZE + 1];
    int r = check_no_member(config, self, err);

    if (r >= 0)
        r = read_backup(path, registry, err);
    if (r >= 0)
        r = need_address(self, err);
    if (r >= 0)
        r = begin_cluster(config, self, registry, &aside, err);
    if (r < 0)
        return r;
    id_to_hex(self->member.cluster_id, sizeof self->member.cluster_id, cluster);
    printf("\nDone: this host is the only member of the new cluster %s.%s%s\n"
           "Start fleetd here (systemctl start fleetd), then let the other hosts join this cluster%s.\n"
           "Units stay with the machine that had them, and are not started elsewhere until it has joined or\n"
           "\"fleetctl confirm-lost\" says that it will not.\n",
           cluster, aside != NULL ? "\nWhat was in the place of its log, and belonged to nobody, is in " : "",
           aside != NULL ? aside : "", config->insecure ? "" : " (fleetctl join-token)");
    return 0;
}

/* What is in a backup has nothing to do with this host. */
static int show_backup(const char *path, struct err *err)
{
    struct registry *registry = registry_new();
    int r = read_backup(path, registry, err);

    registry_free(registry);
    return r;
}

int recovery_from_backup(const struct config *config, const char *path, const struct recovery *how,
                         struct err *err)
{
    struct registry *registry;
    struct self self;
    int r;

    if (how->only_show)
        return show_backup(path, err);
    r = data_lock(config->data_dir, err);
    if (r >= 0)
        r = self_read(config, &self, err);
    if (r < 0)
        return r;
    registry = registry_new();
    r = restore(config, path, &self, registry, err);
    registry_free(registry);
    self_done(&self);
    return r;
}
