/* SPDX-License-Identifier: Apache-2.0 */
/* rotate-authority: begins a rotation and waits for its end, or says how far it is. The cluster goes through
 * it by itself, whether anybody waits or not. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/times.h"
#include "fleetctl/listing.h"
#include "fleetctl/output.h"
#include "fleetctl/verbs.h"

#define LOOK_MS     300u
#define SAY_MS      3000u /* After so long without progress it is said what is waited for. */
#define DEADLINE_MS (10 * 60 * 1000u)

static const char *word_of(const char *stage)
{
    if (streq(stage, "spreading"))
        return "until all machines trust the new authority";
    return "until all machines have certificates of the new authority";
}

static char *awaited(struct ctl *ctl, const json_t *authority)
{
    struct strbuf text = {0};
    const json_t *machine;
    size_t i;

    json_array_foreach(json_object_get(authority, "waiting"), i, machine)
    {
        _cleanup_(freep) char *legend = listing_legend(ctl, api_text(machine, "machineID"));

        strbuf_addf(&text, "%s%s (%s, %s)", i > 0 ? ", " : "", legend, api_text(machine, "hostname"),
                    api_text(machine, "state"));
    }
    return strbuf_take(&text);
}

static char *date_of(const json_t *object, const char *key)
{
    time_t seconds = (time_t)(json_integer_value(json_object_get(object, key)) / 1000);
    struct tm tm;
    char text[64];

    if (seconds <= 0 || localtime_r(&seconds, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        return xstrdup("-");
    return xstrdup(text);
}

static void print_status(struct ctl *ctl, const json_t *authority)
{
    const char *stage = api_text(authority, "stage");
    _cleanup_(freep) char *machines = awaited(ctl, authority), *until = date_of(authority, "expires"),
                          *since = date_of(authority, "since");

    printf("Authority: %.*s, until %s\n", ctl->options.full ? 64 : 16, api_text(authority, "fingerprint"),
           until);
    if (streq(stage, "steady")) {
        printf("Rotation: none under way\n");
        return;
    }
    printf("Rotation: waits %s, since %s\n", word_of(stage), since);
    printf("Waits for: %s\n", machines[0] != '\0' ? machines : "the next step");
}

static int look(struct ctl *ctl, json_t **ret)
{
    struct err err = {0};
    int r = ctl_read(ctl, "authority", ret, &err);

    return r < 0 ? ctl_fail(&err, r, "Error retrieving the cluster's authority") : CTL_EXIT_DONE;
}

static int show(struct ctl *ctl)
{
    _cleanup_(json_decrefp) json_t *authority = NULL;
    int code = look(ctl, &authority);

    if (code != CTL_EXIT_DONE)
        return code;
    if (ctl->options.output != OUTPUT_TEXT)
        listing_print_json(ctl, authority);
    else
        print_status(ctl, authority);
    return CTL_EXIT_DONE;
}

static int act(struct ctl *ctl, const char *action, json_t **ret)
{
    _cleanup_(json_decrefp) json_t *body = json_pack("{s:s}", "action", action);
    struct err err = {0};
    int r = api_call(ctl->api, "POST", "authority", body, 0, ret, &err);

    if (r >= 0 && *ret == NULL)
        r = err_set(&err, -EBADMSG, "fleetd's answer holds nothing");
    return r < 0 ? ctl_fail(&err, r, "Error rotating the authority") : CTL_EXIT_DONE;
}

static void pause_ms(unsigned ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

/* From one look to the next. A leader that is lost meanwhile is waited for, too. */
static int follow(struct ctl *ctl, json_t *authority)
{
    uint64_t begin = now_ms(),
             deadline = begin + (ctl->options.deadline_ms != 0 ? ctl->options.deadline_ms : DEADLINE_MS),
             say = begin + SAY_MS;
    _cleanup_(freep) char *said = xstrdup("");
    _cleanup_(json_decrefp) json_t *now = json_incref(authority);

    while (!streq(api_text(now, "stage"), "steady")) {
        json_t *fresh = NULL;
        struct err err = {0};

        if (now_ms() >= say) {
            _cleanup_(freep) char *machines = awaited(ctl, now);

            if (machines[0] != '\0' && !streq(machines, said)) {
                complain("Waiting %s: %s", word_of(api_text(now, "stage")), machines);
                free(said);
                said = TAKE_PTR(machines);
            }
        }
        if (now_ms() >= deadline) {
            complain(
                "The rotation goes on by itself; fleetctl rotate-authority --status shows how far it is");
            return CTL_EXIT_FAILED;
        }
        pause_ms(LOOK_MS);
        if (api_call(ctl->api, "GET", "authority", NULL, 0, &fresh, &err) < 0 || fresh == NULL) {
            complain("WARNING: %s", err.text);
            continue;
        }
        json_decref(now);
        now = fresh;
    }
    printf("The authority is %.16s now\n", api_text(now, "fingerprint"));
    return CTL_EXIT_DONE;
}

int verb_rotate_authority(struct ctl *ctl, const struct strlist *args)
{
    const struct options *o = &ctl->options;
    _cleanup_(json_decrefp) json_t *authority = NULL;
    int code;

    if (o->show_status + o->cancel + o->force > 1) {
        complain("fleetctl rotate-authority: --status, --cancel and --force stand alone");
        return CTL_EXIT_USAGE;
    }
    if (o->show_status)
        return show(ctl);
    code = act(ctl, o->cancel ? "cancel" : o->force ? "force" : "rotate", &authority);
    if (code != CTL_EXIT_DONE)
        return code;
    if (o->cancel) {
        printf("The authority stays as it is\n");
        return CTL_EXIT_DONE;
    }
    if (o->no_block) {
        print_status(ctl, authority);
        return CTL_EXIT_DONE;
    }
    return follow(ctl, authority);
}
