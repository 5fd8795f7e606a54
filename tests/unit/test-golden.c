/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios of placement: tests/golden/NAME/input is a cluster, plan what constraints/ makes of it, why its
 * reasons for every unit and machine. `test-golden --update` rewrites plan and why; the diff is the review.
 * Other arguments are the names of scenarios to run.
 *
 *   machine ID HOSTNAME up|held|lost [KEY=VALUE ...]
 *                       labels sorted by key; held: alive, takes no new units
 *   unit NAME inactive|loaded|launched TARGET|- [pinned]
 *     Option=Value      of [X-Fleet], indented
 *
 * Each is also run with everything in the opposite order, which must give the same, and again after its plan
 * was carried out, which must give an empty plan. */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "constraints/plan.h"

struct scenario {
    struct plan_machine *machines;
    size_t machine_count, machine_capacity;
    struct plan_unit *units;
    size_t unit_count, unit_capacity;
    struct unit_file *file; /* Of the last unit, while reading. */
};

static void free_scenario(struct scenario *s)
{
    for (size_t i = 0; i < s->machine_count; i++) {
        for (size_t j = 0; j < s->machines[i].label_count; j++)
            free((char *)s->machines[i].labels[j].key);
        free((struct plan_label *)s->machines[i].labels);
        free((char *)s->machines[i].id);
        free((char *)s->machines[i].hostname);
    }
    for (size_t i = 0; i < s->unit_count; i++) {
        requirements_free((struct requirements *)s->units[i].requirements);
        free((char *)s->units[i].name);
        free((char *)s->units[i].target);
    }
    free(s->machines);
    free(s->units);
}

/* --- Reading --- */

static void end_unit(struct scenario *s)
{
    struct plan_unit *unit;

    if (s->file == NULL)
        return;
    unit = &s->units[s->unit_count - 1];
    unit->requirements = requirements_new(s->file, unit->name);
    unit_file_free(TAKE_PTR(s->file));
}

static bool read_machine(struct scenario *s, const struct strlist *words)
{
    struct plan_label *labels;
    struct plan_machine *m;

    if (words->count < 4)
        return false;
    GROW(s->machines, s->machine_capacity, s->machine_count + 1);
    m = &s->machines[s->machine_count++];
    labels = xcalloc(words->count, sizeof *labels);
    *m = (struct plan_machine){
        .id = xstrdup(words->items[1]),
        .hostname = xstrdup(words->items[2]),
        .labels = labels,
        .available = streq(words->items[3], "up"),
        .lost = streq(words->items[3], "lost"),
    };
    for (size_t i = 4; i < words->count; i++) {
        char *key = xstrdup(words->items[i]), *equals = strchr(key, '=');

        assert(equals != NULL);
        *equals = '\0';
        labels[m->label_count++] = (struct plan_label){key, equals + 1};
    }
    return m->available || m->lost || streq(words->items[3], "held");
}

static bool read_unit(struct scenario *s, const struct strlist *words)
{
    struct plan_unit *unit;

    if (words->count != 4 && (words->count != 5 || !streq(words->items[4], "pinned")))
        return false;
    GROW(s->units, s->unit_capacity, s->unit_count + 1);
    unit = &s->units[s->unit_count++];
    *unit = (struct plan_unit){.name = xstrdup(words->items[1]), .pinned = words->count == 5};
    if (!streq(words->items[3], "-"))
        unit->target = xstrdup(words->items[3]);
    s->file = unit_file_new();
    return unit_state_from_string(words->items[2], &unit->desired, NULL) == 0;
}

static bool read_option(struct scenario *s, char *line)
{
    char *name = line + strspn(line, " "), *equals = strchr(name, '=');

    if (s->file == NULL || equals == NULL)
        return false;
    *equals = '\0';
    unit_file_add(s->file, "X-Fleet", name, equals + 1);
    return true;
}

static bool read_line(struct scenario *s, char *line)
{
    struct strlist words = {0};
    bool good = true;

    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '\0' || line[0] == '#')
        return true;
    if (line[0] == ' ')
        return read_option(s, line);
    end_unit(s);
    strlist_add_split(&words, line, ' ');
    if (streq(words.items[0], "machine"))
        good = read_machine(s, &words);
    else
        good = streq(words.items[0], "unit") && read_unit(s, &words);
    strlist_done(&words);
    return good;
}

static bool read_scenario(const char *path, struct scenario *s)
{
    _cleanup_(fclosep) FILE *f = fopen(path, "re");
    _cleanup_(freep) char *line = NULL;
    size_t size = 0;
    unsigned number = 0;

    if (f == NULL) {
        perror(path);
        return false;
    }
    while (getline(&line, &size, f) > 0) {
        number++;
        if (!read_line(s, line)) {
            fprintf(stderr, "%s:%u: not understood\n", path, number);
            end_unit(s);
            return false;
        }
    }
    end_unit(s);
    return true;
}

/* --- Writing --- */

static struct plan *make_plan(const struct scenario *s)
{
    struct plan_facts facts = {s->machines, s->machine_count, s->units, s->unit_count};

    return plan_new(&facts);
}

static char *plan_text(const struct plan *plan)
{
    struct strbuf b = {0};

    for (size_t i = 0; i < plan->change_count; i++) {
        const struct plan_change *c = &plan->changes[i];

        strbuf_addf(&b, "%s %s -> %s: %s\n", c->unit, c->from != NULL ? c->from : "-",
                    c->to != NULL ? c->to : "-", c->reason);
    }
    for (size_t i = 0; i < plan->pending_count; i++)
        strbuf_addf(&b, "pending %s: %s\n", plan->pending[i].unit, plan->pending[i].reason);
    return strbuf_take(&b);
}

static void why_global(const struct scenario *s, const struct plan *plan, const char *unit, struct strbuf *b)
{
    for (size_t i = 0; i < s->machine_count; i++) {
        _cleanup_(freep) char *reason = NULL;
        bool wanted = plan_global_wanted(plan, unit, s->machines[i].id, &reason);

        assert(wanted == (reason == NULL));
        strbuf_addf(b, "  %s %s\n", s->machines[i].id, wanted ? "wanted" : reason);
    }
}

static void why_unit(const struct plan *plan, const char *unit, struct strbuf *b)
{
    _cleanup_(plan_explanation_freep) struct plan_explanation *e = plan_explain(plan, unit);

    for (size_t i = 0; i < e->count; i++)
        strbuf_addf(b, "  %s load %zu: %s\n", e->verdicts[i].machine, e->verdicts[i].load,
                    e->verdicts[i].text != NULL ? e->verdicts[i].text : "fits");
}

static int compare_units(const void *a, const void *b)
{
    return strcmp(((const struct plan_unit *)a)->name, ((const struct plan_unit *)b)->name);
}

static int compare_machines(const void *a, const void *b)
{
    return strcmp(((const struct plan_machine *)a)->id, ((const struct plan_machine *)b)->id);
}

/* By name and id. */
static char *why_text(const struct scenario *s, const struct plan *plan)
{
    struct scenario sorted = *s;
    struct strbuf b = {0};

    sorted.units = xmemdup(s->units, s->unit_count * sizeof *s->units);
    sorted.machines = xmemdup(s->machines, s->machine_count * sizeof *s->machines);
    qsort(sorted.units, s->unit_count, sizeof *s->units, compare_units);
    qsort(sorted.machines, s->machine_count, sizeof *s->machines, compare_machines);
    for (size_t i = 0; i < s->unit_count; i++) {
        strbuf_addf(&b, "unit %s\n", sorted.units[i].name);
        if (sorted.units[i].requirements->global)
            why_global(&sorted, plan, sorted.units[i].name, &b);
        else
            why_unit(plan, sorted.units[i].name, &b);
    }
    free(sorted.units);
    free(sorted.machines);
    return strbuf_take(&b);
}

/* --- Checking --- */

static void reverse(struct scenario *s)
{
    for (size_t i = 0; 2 * i + 1 < s->machine_count; i++) {
        struct plan_machine m = s->machines[i];

        s->machines[i] = s->machines[s->machine_count - 1 - i];
        s->machines[s->machine_count - 1 - i] = m;
    }
    for (size_t i = 0; 2 * i + 1 < s->unit_count; i++) {
        struct plan_unit unit = s->units[i];

        s->units[i] = s->units[s->unit_count - 1 - i];
        s->units[s->unit_count - 1 - i] = unit;
    }
}

static void carry_out(struct scenario *s, const struct plan *plan)
{
    for (size_t i = 0; i < plan->change_count; i++)
        for (size_t j = 0; j < s->unit_count; j++)
            if (streq(s->units[j].name, plan->changes[i].unit)) {
                char *to = xstrdup(plan->changes[i].to);

                free((char *)s->units[j].target);
                s->units[j].target = to;
                break;
            }
}

/* The text of a golden file; NULL if it is not there. Owned by the caller. */
static char *read_text(const char *path)
{
    _cleanup_(fclosep) FILE *f = fopen(path, "re");
    struct strbuf b = {0};
    char piece[4096];
    size_t size;

    if (f == NULL)
        return NULL;
    while ((size = fread(piece, 1, sizeof piece, f)) > 0)
        strbuf_add_bytes(&b, piece, size);
    return strbuf_take(&b);
}

static bool write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0) {
        perror(path);
        return false;
    }
    return true;
}

static bool compare(const char *scenario, const char *file, const char *text, bool update)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s/%s", GOLDEN, scenario, file), *old = read_text(path);

    if (old != NULL && streq(old, text))
        return true;
    if (update)
        return write_text(path, text);
    fprintf(stderr, "%s differs; it would be:\n%s", path, text);
    return false;
}

static bool run(const char *name, bool update)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s/input", GOLDEN, name), *text = NULL, *why = NULL,
                          *reversed = NULL, *again = NULL;
    struct scenario s = {0};
    struct plan *plan, *other;
    bool good = read_scenario(path, &s);

    if (good) {
        plan = make_plan(&s);
        text = plan_text(plan);
        why = why_text(&s, plan);
        good = compare(name, "plan", text, update) && compare(name, "why", why, update);
        plan_free(plan);

        reverse(&s);
        plan = make_plan(&s);
        reversed = plan_text(plan);
        if (!streq(text, reversed)) {
            fprintf(stderr, "%s: in the opposite order it gives:\n%s", name, reversed);
            good = false;
        }
        other = plan; /* Its texts belong to the scenario: carried out before it is freed. */
        carry_out(&s, other);
        plan_free(other);
        plan = make_plan(&s);
        again = plan_text(plan);
        if (plan->change_count > 0) {
            fprintf(stderr, "%s: once carried out it still gives:\n%s", name, again);
            good = false;
        }
        plan_free(plan);
    }
    free_scenario(&s);
    printf("%s %s\n", good ? "ok  " : "FAIL", name);
    return good;
}

static bool list_scenarios(struct strlist *names)
{
    _cleanup_(closedirp) DIR *dir = opendir(GOLDEN);
    struct dirent *entry;

    if (dir == NULL) {
        perror(GOLDEN);
        return false;
    }
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            strlist_add(names, entry->d_name);
    strlist_sort(names);
    return names->count > 0;
}

int main(int argc, char **argv)
{
    _cleanup_(strlist_done) struct strlist names = {0};
    bool update = false, good = true;

    for (int i = 1; i < argc; i++) {
        if (streq(argv[i], "--update"))
            update = true;
        else
            strlist_add(&names, argv[i]);
    }
    if (names.count == 0 && !list_scenarios(&names))
        return 1;
    for (size_t i = 0; i < names.count; i++)
        good = run(names.items[i], update) && good;
    return good ? 0 : 1;
}
