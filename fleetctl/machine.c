/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/machine.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "fleetctl/api.h"

int machine_find(const json_t *machines, const char *word, const json_t **ret, struct err *err)
{
    const json_t *machine, *is = NULL, *begins = NULL;
    size_t i, is_count = 0, begins_count = 0;

    json_array_foreach(machines, i, machine)
    {
        const char *id = api_text(machine, "id");

        if (streq(id, word) || (word[0] != '\0' && streq(api_text(machine, "hostname"), word))) {
            is = machine;
            is_count++;
        } else if (word[0] != '\0' && str_has_prefix(id, word)) {
            begins = machine;
            begins_count++;
        }
    }
    if (is_count + begins_count == 0)
        return err_set(err, -ENOENT, "there is no machine \"%s\" (fleetctl list-machines)", word);
    if (is_count > 1 || (is_count == 0 && begins_count > 1))
        return err_set(err, -EEXIST, "\"%s\" is more than one machine", word);
    *ret = is_count == 1 ? is : begins;
    return 0;
}

static int add_machine(const json_t *machines, const char *word, json_t *ids, struct err *err)
{
    const json_t *machine, *id;
    size_t i;
    int r = machine_find(machines, word, &machine, err);

    if (r < 0)
        return r;
    json_array_foreach(ids, i,
                       id) if (json_equal(id, json_object_get(machine, "id"))) return 0; /* Said twice. */
    json_array_append(ids, json_object_get(machine, "id"));
    return 0;
}

int machine_read_ids(struct ctl *ctl, const struct strlist *args, json_t *ids)
{
    _cleanup_(json_decrefp) json_t *machines = NULL;
    struct err err = {0};
    int r = ctl_read_all(ctl, "machines?lost=yes", "machines", false, &machines, &err);

    if (r < 0)
        return ctl_fail(&err, r, "Error retrieving list of machines");
    for (size_t i = 0; i < args->count; i++) {
        r = add_machine(machines, args->items[i], ids, &err);
        if (r < 0) {
            ctl_fail(&err, r, NULL);
            return r == -ENOENT ? CTL_EXIT_NO_UNIT : CTL_EXIT_FAILED;
        }
    }
    return CTL_EXIT_DONE;
}
