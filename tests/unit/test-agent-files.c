/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's units directory, and systemd's links to it, in a directory of the test's own. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "fleetd/agent_files.h"

struct world {
    char *top, *units, *links;
    int fd; /* Of 'units'. */
};

static int set_up(void **state)
{
    struct world *w = NEW0(struct world);
    char top[] = "/tmp/test-agent-files-XXXXXX";

    assert_non_null(mkdtemp(top));
    w->top = xstrdup(top);
    w->units = xasprintf("%s/fleet/units", top);
    w->links = xasprintf("%s/system", top);
    assert_int_equal(agent_files_open(w->units, &w->fd, NULL), 0);
    assert_int_equal(mkdir(w->links, 0755), 0);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    _cleanup_(freep) char *command = xasprintf("rm -r %s", w->top);
    int r = system(command);

    close(w->fd);
    free(w->links);
    free(w->units);
    free(w->top);
    free(w);
    return r;
}

static void put(const struct world *w, const char *name, const char *text, bool keep_time)
{
    assert_int_equal(agent_files_write(w->fd, name, text, strlen(text), keep_time, NULL), 0);
}

static void link_to(const struct world *w, const char *link, const char *name)
{
    _cleanup_(freep) char *at = xasprintf("%s/%s", w->links, link);
    _cleanup_(freep) char *target = xasprintf("%s/%s", w->units, name);

    assert_int_equal(symlink(target, at), 0);
}

static bool has_link(const struct world *w, const char *link)
{
    _cleanup_(freep) char *at = xasprintf("%s/%s", w->links, link);
    struct stat st;

    return lstat(at, &st) == 0;
}

static void make_folder(const struct world *w, const char *name)
{
    _cleanup_(freep) char *at = xasprintf("%s/%s", w->links, name);

    assert_int_equal(mkdir(at, 0755), 0);
}

/* fleet-behaviour.md §2.7 */
static void test_install(void **state)
{
    static const struct {
        const char *text;
        enum agent_install install;
    } table[] = {
        {"", AGENT_INSTALL_NONE},
        {"[Service]\nWantedBy=a.target\n", AGENT_INSTALL_NONE},
        {"[Install]\n", AGENT_INSTALL_NONE}, /* A section without options vanishes (§2.3). */
        {"[install]\nWantedBy=a.target\n", AGENT_INSTALL_NONE},
        {"[X\n", AGENT_INSTALL_NONE}, /* No unit file: systemd says so. */
        {"[Install]\nDefaultInstance=x\n", AGENT_INSTALL_EMPTY},
        {"[Install]\nWantedBy=\n", AGENT_INSTALL_EMPTY},
        {"[Install]\nwantedby=a.target\n", AGENT_INSTALL_EMPTY},
        {"[Install]\nWantedBy=a.target\n", AGENT_INSTALL_SOME},
        {"[Install]\nDefaultInstance=x\n[Unit]\nA=1\n[Install]\nRequiredBy=a.target\n", AGENT_INSTALL_SOME},
        {"[Install]\nAlias=b.service\n", AGENT_INSTALL_SOME},
        {"[Install]\nAlso=b.socket\n", AGENT_INSTALL_SOME},
        {"[Install]\nUpheldBy=b.service\n", AGENT_INSTALL_SOME},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        assert_int_equal(agent_files_install(table[i].text, strlen(table[i].text)), table[i].install);
}

/* systemd must notice new content, and must not notice what is not for it. */
static void test_times(void **state)
{
    const struct world *w = *state;
    struct stat first, second, third;

    put(w, "a.service", "1", true); /* There is no time to keep. */
    assert_int_equal(fstatat(w->fd, "a.service", &first, 0), 0);
    assert_int_equal(first.st_mode & 07777, 0644);
    put(w, "a.service", "2", false);
    assert_int_equal(fstatat(w->fd, "a.service", &second, 0), 0);
    assert_true(
        second.st_mtim.tv_sec > first.st_mtim.tv_sec ||
        (second.st_mtim.tv_sec == first.st_mtim.tv_sec && second.st_mtim.tv_nsec > first.st_mtim.tv_nsec));
    put(w, "a.service", "3", true);
    assert_int_equal(fstatat(w->fd, "a.service", &third, 0), 0);
    assert_memory_equal(&third.st_mtim, &second.st_mtim, sizeof third.st_mtim);
}

static void test_sameness(void **state)
{
    static const char old[] = "[Service]\nA=1\n", moved[] = "[Service]\nA=1\n\n[X-Fleet]\nGlobal=yes\n",
                      other[] = "[Service]\nA=2\n", broken[] = "[Service\n";
    const struct world *w = *state;

    assert_false(agent_files_mean_the_same(w->fd, "a.service", old, strlen(old)));
    put(w, "a.service", old, false);
    assert_true(agent_files_mean_the_same(w->fd, "a.service", old, strlen(old)));
    assert_true(agent_files_mean_the_same(w->fd, "a.service", moved, strlen(moved)));
    assert_false(agent_files_mean_the_same(w->fd, "a.service", other, strlen(other)));
    assert_false(agent_files_mean_the_same(w->fd, "a.service", broken, strlen(broken)));
    put(w, "b.service", broken, false);
    assert_false(agent_files_mean_the_same(w->fd, "b.service", broken, strlen(broken)));
}

static void test_which_file_it_is(void **state)
{
    const struct world *w = *state;
    _cleanup_(freep) char *link = xasprintf("%s/a.service", w->links);
    _cleanup_(freep) char *path = xasprintf("%s/b.service", w->units);

    put(w, "a.service", "", false);
    put(w, "b.service", "", false);
    assert_false(agent_files_is(w->fd, "a.service", link));
    link_to(w, "a.service", "a.service");
    assert_true(agent_files_is(w->fd, "a.service", link));
    assert_false(agent_files_is(w->fd, "a.service", path));
    assert_false(agent_files_is(w->fd, "c.service", path));
}

static void test_links_are_removed(void **state)
{
    const struct world *w = *state;

    make_folder(w, "x.target.wants");
    make_folder(w, "x.target.requires");
    make_folder(w, "x.target.d");
    link_to(w, "a.service", "a.service");
    link_to(w, "nick.service", "a.service");
    link_to(w, "x.target.wants/a.service", "a.service");
    link_to(w, "x.target.requires/a.service", "a.service");
    link_to(w, "x.target.d/a.service", "a.service"); /* Not made by systemd. */
    link_to(w, "b.service", "b.service");
    link_to(w, "x.target.wants/b.service", "b.service");

    agent_files_unlink(w->links, w->units, "a.service");
    assert_false(has_link(w, "a.service"));
    assert_false(has_link(w, "nick.service"));
    assert_false(has_link(w, "x.target.wants/a.service"));
    assert_false(has_link(w, "x.target.requires/a.service"));
    assert_true(has_link(w, "x.target.d/a.service"));
    assert_true(has_link(w, "b.service"));
    assert_true(has_link(w, "x.target.wants/b.service"));

    agent_files_unlink("/nonexistent", w->units, "b.service");
    agent_files_unlink(w->links, w->units, "c.service");
}

static void note_file(const char *name, const char *hash, enum agent_install install, void *data)
{
    strbuf_addf(data, "%s %.7s %d\n", name, hash, install);
}

static void test_scan(void **state)
{
    const struct world *w = *state;
    _cleanup_(strbuf_done) struct strbuf found = {0};

    put(w, "a.service", "[Unit]\nA=b\n", false);
    put(w, "a@.service", "", false);  /* A template: nothing of ours. */
    put(w, ".fleet-old", "", false);  /* A write that was cut short. */
    put(w, "no-unit.txt", "", false); /* Somebody else's. */
    assert_int_equal(symlinkat("/etc/passwd", w->fd, "b.service"), 0);
    assert_int_equal(agent_files_scan(w->fd, w->units, note_file, &found, NULL), 0);
    assert_string_equal(found.text, "a.service 9936816 0\n");
    assert_int_equal(faccessat(w->fd, ".fleet-old", F_OK, 0), -1);
    assert_int_equal(faccessat(w->fd, "no-unit.txt", F_OK, 0), 0);

    assert_int_equal(agent_files_remove(w->fd, "a.service", NULL), 0);
    assert_int_equal(agent_files_remove(w->fd, "a.service", NULL), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_install),
        cmocka_unit_test_setup_teardown(test_times, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sameness, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_which_file_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links_are_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_scan, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
