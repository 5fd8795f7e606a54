/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs: one table in verbs.c, one file per verb or group of verbs (verb-*.c). A new verb is a row there
 * and a file; nothing else needs to know it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "fleetctl/ctl.h"

/* Does it, says what there is to say, and returns an enum ctl_exit. 'args' are the words behind the verb, as
 * many as the table allows. */
typedef int verb_run(struct ctl *ctl, const struct strlist *args);

struct verb {
    const char *name;
    const char *args;    /* For people: "UNIT...". */
    const char *summary; /* One line. */
    const char *detail;  /* Help's DESCRIPTION, or NULL: the summary will do. */
    size_t args_min, args_max;
    const char *missing; /* Said when there are fewer than args_min; NULL: a general text. */
    unsigned options;    /* enum option_bit beside the global ones. */
    bool offline;        /* Needs no fleetd. */
    verb_run *run;
};

extern const struct verb verbs[];
extern const size_t verb_count;

/* The verb of that name, or the only one that begins with it, or the only one of the first fleet that does.
 * NULL and a text otherwise. */
const struct verb *verb_find(const char *word, struct err *err);

verb_run verb_backup;
verb_run verb_cat;
verb_run verb_client_cert;
verb_run verb_confirm_lost;
verb_run verb_cordon;
verb_run verb_demote;
verb_run verb_destroy;
verb_run verb_drain;
verb_run verb_explain;
verb_run verb_fd_forward;
verb_run verb_help;
verb_run verb_init;
verb_run verb_is_active;
verb_run verb_is_failed;
verb_run verb_join;
verb_run verb_join_token;
verb_run verb_journal;
verb_run verb_leave;
verb_run verb_list_client_certs;
verb_run verb_list_machines;
verb_run verb_list_members;
verb_run verb_list_settings;
verb_run verb_list_unit_files;
verb_run verb_list_units;
verb_run verb_load;
verb_run verb_promote;
verb_run verb_remove_machine;
verb_run verb_restart;
verb_run verb_revoke_client_cert;
verb_run verb_set;
verb_run verb_rotate_authority;
verb_run verb_ssh;
verb_run verb_start;
verb_run verb_status;
verb_run verb_stop;
verb_run verb_submit;
verb_run verb_transfer_leadership;
verb_run verb_uncordon;
verb_run verb_undrain;
verb_run verb_unload;
verb_run verb_verify;
verb_run verb_version;
