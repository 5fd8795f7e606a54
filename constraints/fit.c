/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "constraints/fit.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

#define SHORT_ID_SIZE 8

static const char *const words[FIT_COUNT] = {
    [FIT_YES] = "fits",
    [FIT_LOST] = "lost",
    [FIT_LEFT] = "to be left",
    [FIT_NOT_AVAILABLE] = "taking no new units",
    [FIT_MACHINE_ID] = "MachineID",
    [FIT_METADATA] = "MachineMetadata",
    [FIT_MACHINE_OF] = "MachineOf",
    [FIT_CONFLICTS] = "Conflicts",
    [FIT_REPLACES] = "Replaces",
};

const char *fit_to_string(enum fit fit)
{
    assert(fit < FIT_COUNT);
    return words[fit];
}

char *fit_machine_name(const char *id)
{
    return strlen(id) > SHORT_ID_SIZE ? xasprintf("%.*s...", SHORT_ID_SIZE, id) : xstrdup(id);
}

static bool other_has_prefix(const struct cluster *c, uint32_t machine, const char *prefix)
{
    /* They are sorted: others with the same prefix stand beside it. */
    return (machine > 0 && str_has_prefix(c->machines[machine - 1]->id, prefix)) ||
           (machine + 1 < c->machine_count && str_has_prefix(c->machines[machine + 1]->id, prefix));
}

static enum fit fit_id(const struct cluster *c, const char *wanted, uint32_t machine, bool placed,
                       struct strbuf *why)
{
    const struct plan_machine *m = c->machines[machine];
    size_t size = strlen(wanted);
    bool prefix = size > 0 && str_has_prefix(m->id, wanted);

    if (streq(m->id, wanted) || (m->hostname != NULL && size > 0 && streq(m->hostname, wanted)))
        return FIT_YES;
    if (prefix && size == SHORT_ID_SIZE) /* As the first fleet took it: even where it is not the only one. */
        return FIT_YES;
    if (prefix && (placed || !other_has_prefix(c, machine, wanted)))
        return FIT_YES;
    if (why == NULL)
        return FIT_MACHINE_ID;
    if (prefix)
        strbuf_addf(why, "MachineID=%s begins the id of another machine, too", wanted);
    else
        strbuf_addf(why, "MachineID=%s is not this machine", wanted);
    return FIT_MACHINE_ID;
}

/* NULL: none. */
static const char *find_label(const struct plan_machine *m, const char *key)
{
    size_t low = 0, high = m->label_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int r = strcmp(m->labels[middle].key, key);

        if (r == 0)
            return m->labels[middle].value;
        if (r < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (streq(key, "hostname"))
        return m->hostname;
    return streq(key, "machine-id") ? m->id : NULL;
}

static void say_metadata(const struct requirements_metadata *wanted, const char *value, struct strbuf *why)
{
    strbuf_add(why, "MachineMetadata ");
    for (size_t i = 0; i < wanted->values.count; i++)
        strbuf_addf(why, "%s%s=%s", i > 0 ? " or " : "", wanted->key, wanted->values.items[i]);
    if (value != NULL)
        strbuf_addf(why, " not met (this machine has %s=%s)", wanted->key, value);
    else
        strbuf_addf(why, " not met (this machine has no %s)", wanted->key);
}

enum fit fit_machine(const struct cluster *c, const struct requirements *r, uint32_t machine, bool placed,
                     struct strbuf *why)
{
    if (r->has_machine_id) {
        enum fit fit = fit_id(c, r->machine_id, machine, placed, why);

        if (fit != FIT_YES)
            return fit;
    }
    for (size_t i = 0; i < r->metadata_count; i++) {
        const char *value = find_label(c->machines[machine], r->metadata[i].key);

        if (value != NULL && strlist_has(&r->metadata[i].values, value))
            continue;
        if (why != NULL)
            say_metadata(&r->metadata[i], value, why);
        return FIT_METADATA;
    }
    return FIT_YES;
}

static bool any_matches(const struct strlist *patterns, const char *name)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (requirements_glob(patterns->items[i], name))
            return true;
    return false;
}

bool fit_conflict(const struct plan_unit *a, const struct plan_unit *b)
{
    return !streq(a->name, b->name) && (any_matches(&a->requirements->conflicts, b->name) ||
                                        any_matches(&b->requirements->conflicts, a->name));
}

bool fit_replaces(const struct plan_unit *a, const struct plan_unit *b)
{
    return !streq(a->name, b->name) && any_matches(&a->requirements->replaces, b->name) &&
           !any_matches(&b->requirements->replaces, a->name);
}
