/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/machine.h"

#include <errno.h>

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
