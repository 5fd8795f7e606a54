/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd hears of us: the journal's messages and their catalog, and asking for patience. */
#include <config.h>

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetd/patience.h"

#define ID_SIZE 32u

/* ---- the catalog ---- */

/* Every id that follows 'before' in a file, sorted. */
static struct strlist ids_of(const char *path, const char *before)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    struct strlist ids = {0};
    char line[512];

    if (file == NULL)
        fail_msg("%s: %m", path);
    while (fgets(line, sizeof line, file) != NULL) {
        const char *at = strstr(line, before);

        if (at == NULL)
            continue;
        at += strlen(before);
        if (strspn(at, "0123456789abcdef") != ID_SIZE)
            fail_msg("%s: no id of 32 hex digits: %s", path, line);
        strlist_take(&ids, xstrndup(at, ID_SIZE));
    }
    strlist_sort(&ids);
    return ids;
}

static void test_the_catalog_has_every_message(void **state)
{
    struct strlist used = ids_of(SOURCE_DIR "/fleetd/messages.h", "\"MESSAGE_ID="),
                   explained = ids_of(SOURCE_DIR "/data/catalog/fleet.catalog", "-- ");

    assert_true(used.count > 10);
    for (size_t i = 1; i < used.count; i++)
        assert_string_not_equal(used.items[i - 1], used.items[i]); /* Each is one message's. */
    assert_int_equal(used.count, explained.count);
    for (size_t i = 0; i < used.count; i++)
        assert_string_equal(used.items[i], explained.items[i]);
    strlist_done(&used);
    strlist_done(&explained);
}

/* ---- patience ---- */

struct systemd {
    char dir[64], path[96];
    int fd;
};

static void systemd_listen(struct systemd *s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(s->dir, sizeof s->dir, "/tmp/test-messages-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->path, sizeof s->path, "%s/notify", s->dir);
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", s->path);
    s->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&addr, sizeof addr), 0);
    setenv("NOTIFY_SOCKET", s->path, 1);
}

static void systemd_done(struct systemd *s)
{
    unsetenv("NOTIFY_SOCKET");
    close(s->fd);
    unlink(s->path);
    rmdir(s->dir);
}

/* The next message, "" if none comes in time. */
static const char *systemd_hears(const struct systemd *s, int timeout_ms)
{
    static char text[512];
    struct pollfd fd = {.fd = s->fd, .events = POLLIN};
    ssize_t n = poll(&fd, 1, timeout_ms) > 0 ? recv(s->fd, text, sizeof text - 1, 0) : 0;

    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* So much faster does time pass here for whoever asks; what is waited for really, is not. */
#define TIMES_FASTER 200u

uint64_t __real_now_ms(void);
uint64_t __wrap_now_ms(void);

uint64_t __wrap_now_ms(void)
{
    return TIMES_FASTER * __real_now_ms();
}

/* What it has taken so far is said as everywhere, without counting milliseconds. */
static void assert_says_how_long(const char *said)
{
    const char *begin = strchr(said, '(');
    _cleanup_(freep) char *took = xstrdup(begin + 1), *right = NULL;
    uint64_t ms;

    assert_int_equal(took[strlen(took) - 1], ')');
    took[strlen(took) - 1] = '\0';
    assert_int_equal(duration_parse(took, &ms, NULL), 0);
    right = duration_format(ms);
    assert_string_equal(took, right);
    assert_true(ms >= 20 * TIMES_FASTER / 2 && ms % 1000 == 0);
}

static void test_patience_is_asked_for_again_and_again(void **state)
{
    struct systemd s;
    struct patience *patience;

    systemd_listen(&s);
    patience = patience_new("opening the log", 20);
    for (int i = 0; i < 3; i++) {
        const char *said = systemd_hears(&s, 5000);

        if (!str_has_prefix(said, "EXTEND_TIMEOUT_USEC=60000\nSTATUS=opening the log ("))
            fail_msg("said \"%s\"", said);
        assert_says_how_long(said);
    }
    patience_free(patience);
    while (*systemd_hears(&s, 0) != '\0') /* What was said before that. */
        ;
    assert_string_equal(systemd_hears(&s, 100), "");
    systemd_done(&s);
}

static void test_what_is_soon_done_asks_for_nothing(void **state)
{
    struct systemd s;

    systemd_listen(&s);
    patience_free(patience_new("opening the log", PATIENCE_STEP_MS));
    assert_string_equal(systemd_hears(&s, 0), "");
    systemd_done(&s);
    assert_null(patience_new("opening the log", 1)); /* Nobody listens. */
    patience_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_catalog_has_every_message),
        cmocka_unit_test(test_patience_is_asked_for_again_and_again),
        cmocka_unit_test(test_what_is_soon_done_asks_for_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
