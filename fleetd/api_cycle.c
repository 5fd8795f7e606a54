/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/api_change.h"

struct visit {
    const char *name; /* Borrowed, as long as the lists of peers. */
    const struct strlist *peers;
    size_t next;         /* Of its peers. */
    struct visit *above; /* Who asks for it: the path from the beginning. */
    bool finished;       /* Nothing below it leads back. */
    UT_hash_handle hh;
};

static struct visit *visit_add(struct visit **visits, const char *name, struct visit *above, api_peers *peers,
                               void *data)
{
    struct visit *visit = NEW0(struct visit);

    visit->name = name;
    visit->peers = peers(name, data);
    visit->above = above;
    HASH_ADD_KEYPTR(hh, *visits, visit->name, strlen(visit->name), visit);
    return visit;
}

static int refuse_circle(const struct visit *last, const struct visit *first, struct err *err)
{
    struct strbuf path = {0};
    int r;

    for (const struct visit *visit = last; visit != first; visit = visit->above)
        strbuf_addf(&path, "%s for ", visit->name);
    strbuf_addf(&path, "%s", first->name);
    r = err_set(err, -EINVAL, "unresolvable requirements: MachineOf goes in a circle: %s waits for %s",
                first->name, path.text);
    strbuf_done(&path);
    return r;
}

/* Depth first; on the heap, because a chain of peers may be as long as there are units. */
static int search(struct visit **visits, const char *name, api_peers *peers, void *data, struct err *err)
{
    struct visit *at = visit_add(visits, name, NULL, peers, data), *seen;

    while (at != NULL) {
        const char *peer;

        if (at->peers == NULL || at->next >= at->peers->count) {
            at->finished = true;
            at = at->above;
            continue;
        }
        peer = at->peers->items[at->next++];
        HASH_FIND_STR(*visits, peer, seen);
        if (seen == NULL)
            at = visit_add(visits, peer, at, peers, data);
        else if (!seen->finished)
            return refuse_circle(at, seen, err);
    }
    return 0;
}

int api_cycle_check(const char *name, api_peers *peers, void *data, struct err *err)
{
    struct visit *visits = NULL, *visit, *next;
    int r = search(&visits, name, peers, data, err);

    HASH_ITER (hh, visits, visit, next) {
        HASH_DEL(visits, visit);
        free(visit);
    }
    return r;
}
