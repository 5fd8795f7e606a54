/* SPDX-License-Identifier: Apache-2.0 */
/* Drives an agent by hand, inside a host of the lab: agent-probe UNITS_DIRECTORY STATE_FILE.
 *
 * Commands on stdin, gathered until "go" or "complete", then handed over as one change of the share:
 *   want NAME FILE launched|loaded GENERATION [RESTART]      FILE: a path, or a hash: without text
 *   remove NAME
 *   go | complete | list | quit
 * Reports come on stdout, one line each. Ends at the end of stdin; units run on. */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/agent.h"
#include "units/file.h"

struct wanted {
    char *name, *text, hash[UNIT_HASH_SIZE];
};

static struct probe {
    uv_loop_t loop;
    uv_pipe_t in;
    struct agent *agent;
    struct strbuf input;
    struct agent_unit *units;
    struct wanted *owned;
    size_t count, capacity, owned_capacity;
    struct strlist removed;
} probe;

static void print_report(const struct agent_report *r, void *data)
{
    const char *word = data;

    printf("%s %" PRIu64 " %s load=%s active=%s sub=%s hash=%.7s generation=%" PRIu64
           " result=%s launched=%d gone=%d error=%s\n",
           word != NULL ? word : "report", uv_hrtime() / 1000000, r->name, r->load_state, r->active_state,
           r->sub_state, r->hash, r->generation, r->result, r->launched, r->gone, r->error);
}

static void on_report(const struct agent_report *report, void *data)
{
    print_report(report, NULL);
}

static void on_bus(bool connected, const char *why, void *data)
{
    printf("bus %d %s\n", connected, why);
}

static char *read_text(const char *path, size_t *ret_size)
{
    _cleanup_(fclosep) FILE *f = fopen(path, "re");
    char *text = xmalloc(UNIT_FILE_SIZE_MAX);

    if (f == NULL) {
        perror(path);
        exit(1);
    }
    *ret_size = fread(text, 1, UNIT_FILE_SIZE_MAX, f);
    return text;
}

static void want(const char *name, const char *path, const char *desired, uint64_t generation,
                 uint64_t restart)
{
    struct wanted *w;
    size_t size = 0;

    GROW(probe.owned, probe.owned_capacity, probe.count + 1);
    GROW(probe.units, probe.capacity, probe.count + 1);
    w = &probe.owned[probe.count];
    *w = (struct wanted){.name = xstrdup(name)};
    if (strlen(path) == UNIT_HASH_SIZE - 1 && path[0] != '/') {
        memcpy(w->hash, path, UNIT_HASH_SIZE);
    } else {
        w->text = read_text(path, &size);
        unit_hash(w->text, size, w->hash);
    }
    probe.units[probe.count++] = (struct agent_unit){
        .name = w->name,
        .text = w->text,
        .text_size = size,
        .desired = streq(desired, "launched") ? UNIT_STATE_LAUNCHED : UNIT_STATE_LOADED,
        .generation = generation,
        .restart = restart,
    };
}

static void go(bool complete)
{
    struct err err = {0};
    int r;

    for (size_t i = 0; i < probe.count; i++)
        probe.units[i].hash = probe.owned[i].hash;
    r = agent_want(probe.agent, probe.units, probe.count, (const char *const *)probe.removed.items,
                   probe.removed.count, complete, &err);
    printf("want %d %" PRIu64 " %s\n", r, uv_hrtime() / 1000000, r < 0 ? err.text : "");
    for (size_t i = 0; i < probe.count; i++) {
        free(probe.owned[i].name);
        free(probe.owned[i].text);
    }
    probe.count = 0;
    strlist_done(&probe.removed);
    probe.removed = (struct strlist){0};
}

static void quit(void)
{
    if (uv_is_closing((uv_handle_t *)&probe.in))
        return;
    uv_close((uv_handle_t *)&probe.in, NULL);
    agent_close(probe.agent, NULL, NULL);
}

static void command(char *line)
{
    char name[300], path[300], desired[20];
    uint64_t generation, restart = 0;

    if (sscanf(line, "want %299s %299s %19s %" SCNu64 " %" SCNu64, name, path, desired, &generation,
               &restart) >= 4)
        want(name, path, desired, generation, restart);
    else if (sscanf(line, "remove %299s", name) == 1)
        strlist_add(&probe.removed, name);
    else if (streq(line, "go") || streq(line, "complete"))
        go(streq(line, "complete"));
    else if (streq(line, "list"))
        agent_each(probe.agent, print_report, "list");
    else if (streq(line, "quit"))
        quit();
    else
        printf("bad command %s\n", line);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    *buf = uv_buf_init(xmalloc(suggested), (unsigned)suggested);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    _cleanup_(freep) char *bytes = buf->base;
    char *line, *end;

    if (size < 0) {
        quit();
        return;
    }
    strbuf_add_bytes(&probe.input, bytes, (size_t)size);
    for (line = probe.input.text; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        command(line);
    }
    probe.input.size = strlen(line);
    memmove(probe.input.text, line, probe.input.size + 1);
}

int main(int argc, char **argv)
{
    static const struct agent_callbacks callbacks = {.on_report = on_report, .on_bus = on_bus};
    struct agent_config config = {0};
    struct err err = {0};

    if (argc != 3)
        return 2;
    config.units_directory = argv[1];
    config.state_file = argv[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    uv_loop_init(&probe.loop);
    if (agent_new(&probe.loop, &config, &callbacks, NULL, &probe.agent, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    uv_pipe_init(&probe.loop, &probe.in, 0);
    uv_pipe_open(&probe.in, STDIN_FILENO);
    uv_read_start((uv_stream_t *)&probe.in, on_alloc, on_read);
    uv_run(&probe.loop, UV_RUN_DEFAULT);
    strbuf_done(&probe.input);
    free(probe.units);
    free(probe.owned);
    return uv_loop_close(&probe.loop) == 0 ? 0 : 3;
}
