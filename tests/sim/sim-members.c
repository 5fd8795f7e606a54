/* SPDX-License-Identifier: Apache-2.0 */
/* Operators who change who belongs to the cluster, and who votes: as "fleetctl leave", "remove-machine",
 * "promote", "demote" and "transfer-leadership" do it, step by step, over the API of some host. A host that
 * has left stays out for a while, without "join" in its configuration, and joins anew then. */
#include <config.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "tests/sim/sim.h"

#define LOOK_MS     500u
#define LOOKS_MAX   60u    /* How often an operator looks before he gives up. */
#define DRAIN_MS    15000u /* How long he waits for units to leave. */
#define REPEATS_MAX 6u
#define REPEAT_MS   1500u

/* ---- joining anew ---- */

static void on_readmitted(void *data, bool lost)
{
    struct sim_host *host = data;

    if (!lost)
        sim_member_readmit(host);
}

void sim_member_readmit(struct sim_host *host)
{
    if (!host->out)
        return;
    sim_note(host, "is to join (again)");
    host->out = false;
    sim_config_read_again(host);
}

static void stay_out(struct sim_host *host, uint64_t ms)
{
    if (ms == 0 || host->out || sim.calm)
        return;
    host->out = true;
    sim_config_read_again(host);
    sim_after(ms, SIM_NOBODY, NULL, on_readmitted, host);
}

/* ---- one request ---- */

static void on_answer(struct sim_request *request, unsigned status, void *data)
{
}

static void ask(struct sim_host *at, const char *method, const char *path, const char *body)
{
    sim_http(at, method, path, body, on_answer, NULL);
}

void sim_member_prefer(struct sim_host *at, const struct sim_host *about, const char *preference)
{
    _cleanup_(freep) char *body =
        xasprintf("{\"machines\":[\"%s\"],\"preference\":\"%s\"}", about->machine_id, preference);

    sim_note(about, "client: its vote: %s", preference);
    ask(at, "POST", "/fleet/v1/members", body);
}

void sim_member_transfer(struct sim_host *at, const struct sim_host *to)
{
    const struct sim_host *leader = sim_leader();
    _cleanup_(freep) char *body = NULL;

    if (leader == NULL)
        return;
    body = xasprintf("{\"from\":\"%s\",\"to\":\"%s\"}", leader->machine_id, to != NULL ? to->machine_id : "");
    sim_note(leader, "client: leadership to %s", to != NULL ? to->name : "anybody");
    ask(at, "POST", "/fleet/v1/leadership", body);
}

/* ---- removing ---- */

enum step { STEP_DRAIN, STEP_RETIRE, STEP_WAIT, STEP_REMOVE, STEP_REGRET };

/* What an operator is about, one step after another. */
struct going {
    struct sim_host *at, *host;
    enum step step;
    unsigned tries;
    bool force;
    uint64_t out_ms;
};

static void go_on(void *data, bool lost);

static void next(struct going *going, enum step step, uint64_t ms)
{
    going->tries = step == going->step ? going->tries + 1 : 0;
    going->step = step;
    sim_after(ms, SIM_NOBODY, NULL, go_on, going);
}

/* 'failed': what is done if it does not come through, however often it is asked. */
static void take_answer(struct going *going, unsigned status, enum step done, uint64_t ms, enum step failed)
{
    bool again = status == 0 || status == 409 || status == 503 || status == 504;

    if (status / 100 == 2)
        next(going, done, ms);
    else if (again && going->tries < REPEATS_MAX)
        next(going, going->step, REPEAT_MS);
    else
        next(going, failed, REPEAT_MS);
}

static void on_drained(struct sim_request *request, unsigned status, void *data)
{
    struct going *going = data;

    take_answer(going, status, STEP_RETIRE, sim_random(DRAIN_MS), going->force ? STEP_RETIRE : STEP_REGRET);
}

static void on_retired(struct sim_request *request, unsigned status, void *data)
{
    take_answer(data, status, STEP_WAIT, LOOK_MS, STEP_REGRET);
}

/* 404: an earlier try has done it, and this one is told so. Nobody answers any more: that host has begun
 * anew. */
static void on_removed(struct sim_request *request, unsigned status, void *data)
{
    struct going *going = data;

    if (status / 100 == 2 || status == 404 || (status == 0 && going->at == going->host)) {
        stay_out(going->host, going->out_ms);
        free(going);
        return;
    }
    take_answer(going, status, STEP_REMOVE, REPEAT_MS, STEP_REGRET);
}

static void on_regretted(struct sim_request *request, unsigned status, void *data)
{
    struct going *going = data;

    if (status / 100 == 2 || status == 404 || going->tries >= REPEATS_MAX)
        free(going);
    else
        next(going, STEP_REGRET, REPEAT_MS);
}

static void post(struct going *going, const char *what, const char *value,
                 void (*answered)(struct sim_request *, unsigned status, void *data))
{
    _cleanup_(freep) char *path = xasprintf("/fleet/v1/%s", what);
    _cleanup_(freep) char *body = xasprintf("{\"machines\":[\"%s\"],%s}", going->host->machine_id, value);

    sim_http(going->at, "POST", path, body, answered, going);
}

static void wait_retired(struct going *going)
{
    if (!sim_has_seat(going->host))
        next(going, STEP_REMOVE, 0);
    else if (going->tries < LOOKS_MAX)
        next(going, STEP_WAIT, LOOK_MS);
    else
        next(going, STEP_REGRET, 0);
}

/* When faults are over, so is what operators do: whoever has not left by then stays. */
static void go_on(void *data, bool lost)
{
    struct going *going = data;
    _cleanup_(freep) char *path = NULL;

    if (lost || sim.calm) {
        free(going);
        return;
    }
    switch (going->step) {
    case STEP_DRAIN: post(going, "availability", "\"availability\":\"draining\"", on_drained); break;
    case STEP_RETIRE: post(going, "members", "\"leaving\":true", on_retired); break;
    case STEP_WAIT: wait_retired(going); break;
    case STEP_REMOVE:
        path =
            xasprintf("/fleet/v1/machines/%s%s", going->host->machine_id, going->force ? "?force=yes" : "");
        sim_http(going->at, "DELETE", path, NULL, on_removed, going);
        break;
    case STEP_REGRET: post(going, "members", "\"leaving\":false", on_regretted); break;
    }
}

static void begin(struct sim_host *at, struct sim_host *host, enum step step, bool force, uint64_t out_ms)
{
    struct going *going = NEW0(struct going);

    *going = (struct going){.at = at, .host = host, .step = step, .force = force, .out_ms = out_ms};
    go_on(going, false);
}

void sim_member_leave(struct sim_host *host, bool force, uint64_t out_ms)
{
    sim_note(host, "client: leaves%s", force ? ", whatever is on it" : "");
    begin(host, host, STEP_DRAIN, force, out_ms);
}

void sim_member_remove(struct sim_host *at, struct sim_host *host, bool force, uint64_t out_ms)
{
    sim_note(host, "client: is removed%s", force ? ", whatever is on it" : "");
    begin(at, host, STEP_REMOVE, force, out_ms);
}
