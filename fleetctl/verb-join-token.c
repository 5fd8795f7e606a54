/* SPDX-License-Identifier: Apache-2.0 */
/* join-token: makes, lists and revokes what lets hosts in. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

/* ---- list ---- */

LISTING_TEXT_CELL(cell_id, "id")
LISTING_TEXT_CELL(cell_state, "state")

static char *cell_created(struct ctl *ctl, const json_t *entity)
{
    return listing_moment(entity, "created");
}

static char *cell_expires(struct ctl *ctl, const json_t *entity)
{
    return listing_moment(entity, "expires");
}

static char *cell_used(struct ctl *ctl, const json_t *entity)
{
    json_int_t used = json_integer_value(json_object_get(entity, "used")),
               uses = json_integer_value(json_object_get(entity, "uses"));

    return uses > 0 ? xasprintf("%d of %d", (int)used, (int)uses) : xasprintf("%d", (int)used);
}

static json_t *token_to_json(struct ctl *ctl, const json_t *entity)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "id", api_text(entity, "id"), "state",
                     api_text(entity, "state"), "created",
                     json_integer_value(json_object_get(entity, "created")), "expires",
                     json_integer_value(json_object_get(entity, "expires")), "uses",
                     json_integer_value(json_object_get(entity, "uses")), "used",
                     json_integer_value(json_object_get(entity, "used")));
}

static const struct listing_field fields[] = {
    {"id", cell_id},           {"state", cell_state}, {"expires", cell_expires},
    {"created", cell_created}, {"used", cell_used},
};

static const struct listing tokens = {fields, ARRAY_SIZE(fields), "id,state,expires,used", token_to_json};

static int list_tokens(struct ctl *ctl)
{
    _cleanup_(json_decrefp) json_t *all = NULL;
    struct err err = {0};
    int r = listing_check(ctl, &tokens);

    if (r != CTL_EXIT_DONE)
        return r;
    r = ctl_read_all(ctl, "join-tokens", "tokens", false, &all, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving the join tokens");
    return listing_print(ctl, &tokens, all);
}

/* ---- revoke ---- */

static int revoke_token(struct ctl *ctl, const char *id)
{
    _cleanup_(freep) char *escaped = api_escape(id), *path = xasprintf("join-tokens/%s", escaped);
    struct err err = {0};
    int r = api_call(ctl->api, "DELETE", path, NULL, 0, NULL, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error revoking the join token");
    printf("Join token %s revoked\n", id);
    return CTL_EXIT_DONE;
}

/* ---- make ---- */

static int make_token(struct ctl *ctl)
{
    _cleanup_(json_decrefp) json_t *body = json_object(), *reply = NULL;
    struct err err = {0};
    int r;

    if (ctl->options.ttl != NULL)
        json_object_set_new(body, "ttl", json_string(ctl->options.ttl));
    if (ctl->options.uses != 0)
        json_object_set_new(body, "uses", json_integer(ctl->options.uses));
    r = api_call(ctl->api, "POST", "join-tokens", body, 0, &reply, &err);
    if (r < 0)
        return ctl_fail(&err, r, "Error making a join token");
    if (api_text(reply, "token")[0] == '\0') {
        complain("Error making a join token: fleetd's answer holds none");
        return CTL_EXIT_FAILED;
    }
    printf("%s\n", api_text(reply, "token")); /* Alone: it may go into a file or a pipe. */
    if (isatty(STDOUT_FILENO)) {
        _cleanup_(freep) char *expires = listing_moment(reply, "expires");

        fflush(stdout);
        complain("Whoever has it can let hosts into the cluster until %s. On each: fleetctl join ADDRESS "
                 "--token-file FILE",
                 expires);
    }
    return CTL_EXIT_DONE;
}

int verb_join_token(struct ctl *ctl, const struct strlist *args)
{
    const struct options *o = &ctl->options;
    bool makes = o->ttl != NULL || o->uses != 0;

    if ((o->list && o->revoke != NULL) || (makes && (o->list || o->revoke != NULL))) {
        complain("fleetctl join-token: --list and --revoke stand alone");
        return CTL_EXIT_USAGE;
    }
    if (o->uses < 0) {
        complain("fleetctl join-token: --uses: 1 or more");
        return CTL_EXIT_USAGE;
    }
    if (o->list)
        return list_tokens(ctl);
    return o->revoke != NULL ? revoke_token(ctl, o->revoke) : make_token(ctl);
}
