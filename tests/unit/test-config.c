/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "fleetd/config.h"
#include "fleetd/config_text.h"
#include "fleetd/identity.h"
#include "fleetd/journal.h"
#include "fleetd/options.h"
#include "raftstore/limits.h"

static struct strlist logged;
static char dir[64], file[96], dropins[96];

static void catch_log(int priority, const char *message, const char *const *fields)
{
    if (priority == LOG_INFO) /* That there is no file. */
        return;
    assert_int_equal(priority, LOG_WARNING);
    strlist_add(&logged, message);
}

static int setup(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/test-config-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/fleet.conf", dir);
    snprintf(dropins, sizeof dropins, "%s/fleet.conf.d", dir);
    log_set_sink(catch_log);
    return 0;
}

static int teardown(void **state)
{
    _cleanup_(freep) char *command = xasprintf("rm -rf %s", dir);

    strlist_done(&logged);
    log_set_sink(NULL);
    return system(command);
}

static void write_bytes(const char *path, const char *text, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), size);
    close(fd);
}

static void write_file(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static void load(const char *text, struct config *config)
{
    struct err err = {0};

    strlist_done(&logged);
    write_file(file, text);
    if (config_load(file, config, &err) != 0)
        fail_msg("%s", err.text);
}

static bool was_logged(const char *part)
{
    for (size_t i = 0; i < logged.count; i++)
        if (strstr(logged.items[i], part) != NULL)
            return true;
    return false;
}

/* ---- bad input ---- */

static void test_named_file_must_be_readable(void **state)
{
    struct config config = {.voters = 77};
    struct err err = {0};
    char *big;

    assert_int_equal(config_load("/nonexistent/fleet.conf", &config, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/fleet.conf"));
    err = (struct err){0};
    assert_int_equal(config_load(dir, &config, &err), -EISDIR);
    assert_non_null(strstr(err.text, "is a directory, not a file"));
    big = xmalloc(CONFIG_FILE_MAX + 1);
    memset(big, '#', CONFIG_FILE_MAX + 1);
    write_bytes(file, big, CONFIG_FILE_MAX + 1);
    assert_int_equal(config_load(file, &config, &err), -EFBIG);
    free(big);
    assert_int_equal(config.voters, 77); /* Untouched. */
}

static void test_bad_lines_and_values_keep_the_default(void **state)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"garbage", ":2: neither"},
        {"[broken", ":2: neither"},
        {"verbosity: 1", ":2: neither"},
        {"verbosity:1=2", ":2: neither"},
        {"verbosity # = 1", ":2: neither"},
        {"verbosity", ":2: neither"},
        {"agent_ttl = 30s extra", ":2: agent_ttl: "},
        {"api_listen=host:1", ":2: api_listen: \"host:1\" is a name: an IP address is needed"},
        {"api_listen=[::1", "api_listen"},
        {"api_listen=10.0.0.1:0", "api_listen"},
        {"api_listen=:49153", "api_listen"},
        {"api_listen=49153", "api_listen"},
        {"=5", "unknown key \"\""},
        {"no_such_key=1", ":2: unknown key \"no_such_key\""},
        {"verbosity=much", ":2: verbosity: \"much\" is not a whole number"},
        {"verbosity=1x", "verbosity"},
        {"verbosity=", "verbosity"},
        {"verbosity=99999999999999999999", "verbosity"},
        {"token_limit=0", ":2: token_limit: 0 is not between"},
        {"token_limit=65536", "token_limit"},
        {"token_limit=-1", "token_limit"},
        {"feature_level=99", ":2: feature_level: 99 is not between 0 and "},
        {"disable_engine=maybe", ":2: disable_engine: \"maybe\" is neither true nor false"},
        {"bootstrap=", "bootstrap"},
        {"agent_ttl=soon", ":2: agent_ttl: "},
        {"agent_ttl=1s", "agent_ttl: 1s is not between 2s and 1h"},
        {"agent_ttl=2h", "agent_ttl"},
        {"agent_ttl=", "agent_ttl"},
        {"voters=2", "voters: 2 is none of"},
        {"voters=9", "voters"},
        {"voters=0", "voters"},
        {"public_ip=host.example", "public_ip: \"host.example\" is not an IP"},
        {"units_directory=relative", "units_directory: \"relative\" is not an absolute"},
        {"units_directory=", "units_directory"},
        {"data_dir=x", "data_dir"},
        {"api_socket=x.sock", "api_socket"},
        {"cluster_listen=7390", "cluster_listen: \"7390\" is not host:port"},
        {"cluster_listen=:7390", "cluster_listen"},
        {"cluster_listen=::1:7390", "cluster_listen"},
        {"cluster_listen=[::1]", "cluster_listen"},
        {"cluster_listen=[::1]x:7390", "cluster_listen"},
        {"cluster_listen=[1.2.3.4]:7390", "cluster_listen"},
        {"cluster_listen=h:0", "cluster_listen"},
        {"cluster_listen=h:65536", "cluster_listen"},
        {"cluster_listen=h: 80", "cluster_listen"},
        {"cluster_listen=h:+80", "cluster_listen"},
        {"cluster_listen=", "cluster_listen"},
        {"cluster_address=a b:1", "cluster_address"},
        {"cluster_moved=a:1", "cluster_moved"},
        {"cluster_moved=a:1=", "cluster_moved"},
        {"cluster_moved=a=b:1", "cluster_moved"},
        {"cluster_moved=a:1=b:1,a:1=c:1", ":2: cluster_moved: a:1 has moved to two places"},
        {"cluster_moved=a:1=c:1,b:1=c:1", ":2: cluster_moved: two hosts have moved to c:1"},
        {"join=a:1,b", "join: \"b\" is not host:port"},
        {"metadata==x", "metadata has an empty key"},
        {"[x]\nverbosity=1", ":3: \"verbosity\" is in the section [x]"},
        {"etcd_servers=http://1:2,http://3:4", ":2: etcd_servers has no meaning any more"},
        {"enable_grpc=true", "enable_grpc has no meaning"},
        {"verify_units=false", "verify_units has no meaning"},
        {"disable_watches=1", "disable_watches has no meaning"},
        {"engine_reconcile_interval=2", "engine_reconcile_interval has no meaning"},
        {"authorized_keys_file=/x", "authorized_keys_file has no meaning"},
    };
    struct config defaults, config;

    config_init(&defaults);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *text = xasprintf("# first\n%s\n", cases[i].line);

        load(text, &config);
        if (logged.count != 1 || !was_logged(cases[i].says) || !str_has_prefix(logged.items[0], file))
            fail_msg("%s: %zu messages: %s", cases[i].line, logged.count,
                     logged.count > 0 ? logged.items[0] : "");
        assert_int_equal(config.verbosity, defaults.verbosity);
        assert_int_equal(config.token_limit, defaults.token_limit);
        assert_int_equal(config.voters, defaults.voters);
        assert_int_equal(config.agent_ttl_ms, defaults.agent_ttl_ms);
        assert_int_equal(config.metadata_count, 0);
        assert_int_equal(config.join.count, 0);
        assert_false(config.disable_engine || config.bootstrap);
        assert_string_equal(config.public_ip, "");
        assert_string_equal(config.units_directory, "/run/fleet/units");
        assert_string_equal(config.data_dir, "/var/lib/fleet");
        assert_string_equal(config.api_socket, "/run/fleet.sock");
        assert_string_equal(config.cluster_listen, "[::]:7390");
        assert_string_equal(config.cluster_address, "");
        config_done(&config);
    }
    config_done(&defaults);
}

static void test_the_earlier_value_stays(void **state)
{
    struct config config;

    load("voters=3\nvoters=4\nagent_ttl=30s\nagent_ttl=never\nmetadata=a=b\nmetadata=c=d,=x\n", &config);
    assert_int_equal(logged.count, 3);
    assert_int_equal(config.voters, 3);
    assert_int_equal(config.agent_ttl_ms, 30000);
    assert_int_equal(config.metadata_count, 1);
    assert_string_equal(config.metadata[0].key, "a");
    config_done(&config);
}

static void test_metadata_limits(void **state)
{
    struct strbuf text = {0};
    struct config config;
    char *big = xcalloc(1, LABEL_MAX + 2);

    strbuf_add(&text, "metadata=");
    for (unsigned i = 0; i < LABELS_PER_MACHINE_MAX; i++)
        strbuf_addf(&text, "key%u=v,", i);
    load(text.text, &config);
    if (logged.count > 0)
        fail_msg("%s", logged.items[0]);
    assert_int_equal(config.metadata_count, LABELS_PER_MACHINE_MAX);
    config_done(&config);
    strbuf_add(&text, "more=v");
    load(text.text, &config);
    assert_true(was_logged("LABELS_PER_MACHINE_MAX"));
    assert_int_equal(config.metadata_count, 0);
    config_done(&config);
    strbuf_done(&text);

    memset(big, 'x', LABEL_MAX + 1);
    strbuf_addf(&text, "metadata=a=%s", big);
    load(text.text, &config);
    assert_true(was_logged("LABEL_MAX"));
    config_done(&config);
    strbuf_done(&text);
    free(big);
}

static void test_old_keys_warn_once(void **state)
{
    struct config config;

    load("etcd_servers=[\"http://1\", \"http://2\"]\nETCD_SERVERS=x\netcd_cafile=y\n", &config);
    assert_int_equal(logged.count, 2);
    config_done(&config);
}

static void test_binary_junk_is_survived(void **state)
{
    char junk[4096];
    struct config config;
    unsigned seed = 1;

    for (unsigned round = 0; round < 200; round++) {
        static const char alphabet[] = "ab=:[]#;\\\"' \t\n\n\r\0\x01\xff"
                                       "verbosity=";

        for (size_t i = 0; i < sizeof junk; i++)
            junk[i] = alphabet[(seed = seed * 1103515245 + 12345) / 65536 % (sizeof alphabet - 1)];
        write_bytes(file, junk, sizeof junk);
        assert_int_equal(config_load(file, &config, NULL), 0);
        config_done(&config);
        strlist_done(&logged);
    }
}

/* ---- grammar and values ---- */

static void test_defaults(void **state)
{
    struct config config;

    load("", &config);
    assert_int_equal(logged.count, 0);
    assert_int_equal(config.verbosity, 0);
    assert_int_equal(config.token_limit, 100);
    assert_int_equal(config.agent_ttl_ms, 10000);
    assert_int_equal(config.voters, 5);
    assert_string_equal(config.api_socket_group, "fleet");
    assert_string_equal(config.api_listen, "");
    assert_string_equal(config.join_token, "");
    assert_string_equal(config.join_token_file, "");
    assert_false(config.insecure || config.bootstrap || config.systemd_user || config.disable_engine);
    config_done(&config);
    assert_int_equal(config_load(NULL, &config, NULL), 0); /* Whether this host has one or not. */
    config_done(&config);
}

static void test_value_forms(void **state)
{
    static const struct {
        const char *text, *value;
    } cases[] = {
        {"join_token=abc", "abc"},
        {"  join_token  =  a b c  ", "a b c"},
        {"JOIN_Token=abc", "abc"},
        {"join_token=\"abc\"", "abc"},
        {"join_token='a\"b'", "a\"b"},
        {"join_token=\"  a # b ; c \"", "  a # b ; c "},
        {"join_token='a ;b' ; comment", "a ;b"},
        {"join_token=\"a\" # comment", "a"},
        {"join_token=a#b", "a"},
        {"join_token=a;b", "a"},
        {"join_token=a:b=c", "a:b=c"},
        {"join_token=\"a\"b", "\"a\"b"},
        {"join_token=", ""},
        {"join_token=\"\"", ""},
        {"join_token=ab\\\n  cd\\\n\tef\n", "abcdef"},
        {"join_token=1\njoin_token=2", "2"},
        {"\xef\xbb\xbfjoin_token=bom", "bom"},
        {"join_token=crlf\r\n", "crlf"},
        {"; c\n#c\n\n   # c\njoin_token=x\n  indented=1", "x"},
        {"# a comment ends where its line ends \\\njoin_token=x", "x"},
        {"join_token=a,\\\n# between joined lines \\\n  ; too\n b", "a,b"},
        {"join_token=ab\\", "ab"},
        {"join_token=ab\\\n\njoin_token_file=/x", "ab"},
        {"join_token=\"unclosed", "\"unclosed"},
        {"join_token='a'#b", "a"},
        {"join_token=\"\"#", ""},
        {"\xef\xbb\xbf# mark\njoin_token=x", "x"},
        {"join_token=x\n[unit]\njoin_token=y", "x"},
    };
    struct config config;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        load(cases[i].text, &config);
        if (!streq(config.join_token, cases[i].value))
            fail_msg("%s: got <%s>", cases[i].text, config.join_token);
        config_done(&config);
    }
}

static void test_long_lines(void **state)
{
    struct config config;
    struct strbuf text = {0};

    strbuf_add(&text, "api_socket_group=");
    for (int i = 0; i < 5000; i++)
        strbuf_add(&text, "0123456789");
    strbuf_add(&text, "\nvoters=3\n");
    load(text.text, &config);
    if (logged.count == 0) /* inih with limits as variables, as in Debian. */
        assert_int_equal(strlen(config.api_socket_group), 50000);
    else
        assert_true(was_logged(":1: the line is too long"));
    assert_int_equal(config.voters, 3);
    config_done(&config);
    strbuf_done(&text);
    for (size_t i = 0; i < CONFIG_LINE_MAX; i++)
        strbuf_add(&text, "x");
    load(text.text, &config);
    assert_true(was_logged("the line is too long"));
    config_done(&config);
    strbuf_done(&text);
}

static void test_all_keys(void **state)
{
    struct config config;

    load("verbosity=2\npublic_ip=10.0.0.1\nmetadata= a=b , c = d=e ,skip,e=, a=z\ntoken_limit=7\n"
         "disable_engine=True\nunits_directory=/run/x/\nsystemd_user=yes\nagent_ttl=1m30s\ndata_dir=/d\n"
         "cluster_listen=0.0.0.0:1\ncluster_address=host-1.example:2\nbootstrap=on\n"
         "join=a:1, [fe80::1]:2 ,c.d:3\njoin_token_file=/t\nvoters=7\napi_listen=[::]:49153\n"
         "api_socket=\napi_socket_group=\ninsecure=1\ndrain_on_shutdown=no\nfeature_level=0\n",
         &config);
    assert_int_equal(logged.count, 0);
    assert_int_equal(config.verbosity, 2);
    assert_string_equal(config.public_ip, "10.0.0.1");
    assert_int_equal(config.metadata_count, 3);
    assert_string_equal(config.metadata[0].key, "a");
    assert_string_equal(config.metadata[0].value, "z");
    assert_string_equal(config.metadata[1].key, "c");
    assert_string_equal(config.metadata[1].value, "d=e");
    assert_string_equal(config.metadata[2].value, "");
    assert_int_equal(config.token_limit, 7);
    assert_true(config.disable_engine && config.systemd_user && config.bootstrap && config.insecure);
    assert_false(config.drain_on_shutdown);
    assert_int_equal(config.feature_level, 0);
    assert_string_equal(config.units_directory, "/run/x");
    assert_int_equal(config.agent_ttl_ms, 90000);
    assert_string_equal(config.data_dir, "/d");
    assert_string_equal(config.cluster_listen, "0.0.0.0:1");
    assert_string_equal(config.cluster_address, "host-1.example:2");
    assert_int_equal(config.join.count, 3);
    assert_string_equal(config.join.items[1], "[fe80::1]:2");
    assert_string_equal(config.join_token_file, "/t");
    assert_int_equal(config.voters, 7);
    assert_string_equal(config.api_listen, "[::]:49153");
    assert_string_equal(config.api_socket, "");
    assert_string_equal(config.api_socket_group, "");
    config_done(&config);
}

static void test_dropins_in_order_then_environment(void **state)
{
    _cleanup_(freep) char *a = xasprintf("%s/10-a.conf", dropins), *b = xasprintf("%s/20-b.conf", dropins),
                          *no = xasprintf("%s/30-no.txt", dropins), *d = xasprintf("%s/40-dir.conf", dropins);
    struct config config;

    assert_int_equal(mkdir(dropins, 0755), 0);
    assert_int_equal(mkdir(d, 0755), 0);
    write_file(b, "voters=1\nbad line\n");
    write_file(a, "voters=3\ntoken_limit=5\nmetadata=x=y");
    write_file(no, "voters=7\n");
    setenv("FLEET_METADATA", "", 1);
    setenv("FLEET_TOKEN_LIMIT", "9", 1);
    setenv("FLEET_AGENT_TTL", "never", 1);
    setenv("FLEET_ETCD_SERVERS", "x", 1);
    load("voters=7\nmetadata=a=b\nagent_ttl=20s", &config);
    unsetenv("FLEET_METADATA");
    unsetenv("FLEET_TOKEN_LIMIT");
    unsetenv("FLEET_AGENT_TTL");
    unsetenv("FLEET_ETCD_SERVERS");
    assert_int_equal(config.voters, 1);
    assert_int_equal(config.token_limit, 9);
    assert_int_equal(config.metadata_count, 0); /* Empty counts. */
    assert_int_equal(config.agent_ttl_ms, 20000);
    assert_int_equal(logged.count, 4);
    assert_true(was_logged("20-b.conf:2: neither"));
    assert_true(was_logged("40-dir.conf is a directory"));
    assert_true(was_logged("FLEET_AGENT_TTL: agent_ttl: "));
    assert_true(was_logged("FLEET_ETCD_SERVERS: etcd_servers has no meaning"));
    config_done(&config);
}

static void test_cluster_address(void **state)
{
    static const struct {
        const char *text, *ip, *address;
    } cases[] = {
        {"", "", ""},
        {"", "10.0.0.1", "10.0.0.1:7390"},
        {"", "fd00::1", "[fd00::1]:7390"},
        {"cluster_listen=0.0.0.0:99", "10.0.0.1", "10.0.0.1:99"},
        {"cluster_address=me:5", "10.0.0.1", "me:5"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *address = NULL;
        struct config config;

        load(cases[i].text, &config);
        address = config_cluster_address(&config, cases[i].ip);
        assert_string_equal(address, cases[i].address);
        config_done(&config);
    }
}

/* What one daemon says to another is kept in a file: a line's end in it would begin another key. */
static void test_addresses_of_others(void **state)
{
    static char *const said[] = {
        "10.0.0.1:7390", "",           "host",         "10.0.0.2:7390\nremoved = yes",
        "; x:1",         "[::1]:7390", "db.example:1", " host:1"};
    _cleanup_(freep) char **many = xcalloc(1000, sizeof *many);
    struct strlist list = {0};

    config_add_addresses(&list, said, ARRAY_SIZE(said));
    assert_int_equal(list.count, 3);
    assert_string_equal(list.items[0], "10.0.0.1:7390");
    assert_string_equal(list.items[1], "[::1]:7390");
    assert_string_equal(list.items[2], "db.example:1");
    for (size_t i = 0; i < 1000; i++)
        many[i] = said[0];
    config_add_addresses(&list, many, 1000);
    assert_int_equal(list.count, RAFT_SERVERS_MAX);
    strlist_done(&list);
}

static void test_api_listen(void **state)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"0.0.0.0", "0.0.0.0:49153"},
        {"10.0.0.1:80", "10.0.0.1:80"},
        {"::", "[::]:49153"},
        {"[::]", "[::]:49153"},
        {"fd00::1", "[fd00::1]:49153"},
        {"[fd00::1]:80", "[fd00::1]:80"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(freep) char *text = xasprintf("api_listen = %s\n", cases[i][0]);
        struct config config;

        load(text, &config);
        assert_string_equal(config.api_listen, cases[i][1]);
        assert_int_equal(logged.count, 0);
        config_done(&config);
    }
}

/* ---- reading again ---- */

static void test_a_reload_is_strict(void **state)
{
    static const struct {
        const char *text, *says; /* NULL: it is taken. */
    } cases[] = {
        {"voters=3\nunknown=1\netcd_servers=x\n[section]\nvoters=4\n", NULL},
        {"voters=3\nvoters=4\n", ":2: voters: 4 is none of"},
        {"voters=3\n\ngarbage\n", ":3: neither"},
        {"# \\\nvoters=9\njunk\n", ":2: voters: 9 is none of 1, 3, 5 or 7 (and more, see above)"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config config = {.voters = 77};
        struct err err = {0};
        int r;

        write_file(file, cases[i].text);
        r = config_load_strict(file, &config, &err);
        assert_int_equal(r, cases[i].says != NULL ? -EBADMSG : 0);
        assert_int_equal(config.voters, cases[i].says != NULL ? 77 : 3); /* Untouched. */
        if (r < 0 && (strstr(err.text, cases[i].says) == NULL || strstr(err.text, file) == NULL))
            fail_msg("%s", err.text);
        if (r == 0)
            config_done(&config);
    }
    assert_int_equal(config_load_strict("/nonexistent", &(struct config){0}, NULL), -ENOENT);
}

static void test_a_mistake_in_a_dropin_counts_and_one_in_the_environment_does_not(void **state)
{
    _cleanup_(freep) char *a = xasprintf("%s/a.conf", dropins);
    struct config config;
    struct err err = {0};

    assert_int_equal(mkdir(dropins, 0755), 0);
    write_file(file, "voters=3\n");
    write_file(a, "token_limit=many\n");
    assert_int_equal(config_load_strict(file, &config, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "a.conf:1: token_limit"));
    write_file(a, "token_limit=8\n");
    setenv("FLEET_VOTERS", "4", 1);
    assert_int_equal(config_load_strict(file, &config, &err), 0);
    unsetenv("FLEET_VOTERS");
    assert_int_equal(config.voters, 3);
    assert_int_equal(config.token_limit, 8);
    config_done(&config);
    assert_int_equal(unlink(a), 0);
    assert_int_equal(mkdir(a, 0755), 0);
    assert_int_equal(config_load_strict(file, &config, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "a.conf is a directory"));
}

static void test_a_nul_byte_is_a_mistake(void **state)
{
    static const char text[] = "voters=3\nvo\0ters=1\nverbosity=1\n";
    struct config config;
    struct err err = {0};

    write_bytes(file, text, sizeof text - 1);
    assert_int_equal(config_load_strict(file, &config, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "fleet.conf:2: neither"));
    assert_int_equal(config_load(file, &config, NULL), 0);
    assert_true(was_logged("a NUL byte: all that follows: ignored"));
    assert_int_equal(config.voters, 3);
    assert_int_equal(config.verbosity, 0);
    config_done(&config);
}

/* ---- keys ---- */

static void test_every_key_there_and_back(void **state)
{
    static const char *const values[][2] = {
        {"verbosity", "-3"},
        {"public_ip", "fd00::1"},
        {"metadata", "a=b,c=,d==e"},
        {"token_limit", "65535"},
        {"disable_engine", "true"},
        {"units_directory", "/x"},
        {"systemd_user", "true"},
        {"agent_ttl", "2500ms"},
        {"data_dir", "/d"},
        {"cluster_listen", "0.0.0.0:1"},
        {"cluster_address", "a:1"},
        {"cluster_moved", "a:1=b:2,[::1]:3=c:4"},
        {"bootstrap", "true"},
        {"join", "a:1,[::1]:2"},
        {"join_token", " x "},
        {"join_token_file", "/t"},
        {"voters", "7"},
        {"api_listen", "[::1]:1"},
        {"api_socket", "/s"},
        {"api_socket_group", "wheel"},
        {"api_socket_others", "read"},
        {"insecure", "true"},
        {"drain_on_shutdown", "false"},
        {"feature_level", "0"},
    };
    struct config config;
    size_t count = 0;

    config_init(&config);
    for (; config_key(count) != NULL; count++) {
        _cleanup_(freep) char *text = config_get(&config, config_key(count)->name);

        assert_string_equal(text, config_key(count)->fallback);
    }
    assert_int_equal(count, ARRAY_SIZE(values));
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        _cleanup_(freep) char *text = NULL;

        assert_int_equal(config_set(&config, values[i][0], values[i][1], NULL), 0);
        text = config_get(&config, values[i][0]);
        assert_string_equal(text, values[i][1]);
    }
    assert_int_equal(config_set(&config, "no_such", "", NULL), -ENOENT);
    assert_null(config_get(&config, "no_such"));
    config_done(&config);
}

/* ---- the manual and the example ---- */

static char *slurp(const char *path)
{
    _cleanup_(fclosep) FILE *stream = fopen(path, "re");
    struct strbuf text = {0};
    char part[4096];
    size_t n;

    if (stream == NULL)
        fail_msg("%s: %m", path);
    while ((n = fread(part, 1, sizeof part, stream)) > 0)
        strbuf_add_bytes(&text, part, n);
    return strbuf_take(&text);
}

/* fleet.conf(5) names every key once, with its environment variable and whether SIGHUP applies it. */
static void test_the_manual_has_every_key(void **state)
{
    _cleanup_(freep) char *manual = slurp(SOURCE_DIR "/man/fleet.conf.5");

    for (size_t i = 0; config_key(i) != NULL; i++) {
        const struct config_key *key = config_key(i);
        _cleanup_(freep) char *head = xasprintf("\n.BR %s \" (", key->name), *variable = NULL, *entry = NULL;
        const char *at = strstr(manual, head), *end, *heading;

        if (at == NULL)
            fail_msg("fleet.conf(5) has no entry for %s", key->name);
        if (strstr(at + 1, head) != NULL)
            fail_msg("fleet.conf(5) has two entries for %s", key->name);
        heading = strchr(at + 1, '\n');
        end = strstr(heading, "\n.TP");
        entry = xstrndup(at, end != NULL ? (size_t)(end - at) : strlen(at));
        variable = xasprintf(".B FLEET_%s\n", key->name);
        for (char *p = variable + 3; *p != '\0'; p++)
            *p = (char)toupper((unsigned char)*p);
        if (strstr(entry, variable) == NULL)
            fail_msg("fleet.conf(5) does not name the variable of %s", key->name);
        if ((strstr(entry, "SIGHUP applies it") != NULL) != key->live ||
            (strstr(entry, "Takes effect with the next start") != NULL) == key->live)
            fail_msg("fleet.conf(5) does not say whether SIGHUP applies %s", key->name);
        if (*key->fallback != '\0' &&
            memmem(at, (size_t)(heading - at), key->fallback, strlen(key->fallback)) == NULL)
            fail_msg("fleet.conf(5) does not name the default of %s", key->name);
    }
    for (size_t i = 0; config_old_key(i) != NULL; i++)
        if (strstr(manual, config_old_key(i)) == NULL)
            fail_msg("fleet.conf(5) does not name %s", config_old_key(i));
}

/* The example has every key, commented out, with its default where it has one, and no other key. */
static void test_the_example_has_every_key(void **state)
{
    _cleanup_(freep) char *example = slurp(SOURCE_DIR "/data/fleet.conf"), *uncommented = xstrdup(example);
    struct config config;

    load(example, &config);
    assert_int_equal(logged.count, 0);
    config_done(&config);
    for (size_t i = 0; config_key(i) != NULL; i++) {
        const struct config_key *key = config_key(i);
        _cleanup_(freep) char *line =
            xasprintf("\n#%s =%s%s", key->name, *key->fallback != '\0' ? " " : "", key->fallback);
        const char *at = strstr(example, line);

        if (at == NULL || (*key->fallback != '\0' && at[strlen(line)] != '\n'))
            fail_msg("data/fleet.conf has no line \"%s\"", line + 1);
    }
    for (char *p = uncommented; (p = strstr(p, "\n#")) != NULL; p++)
        if (p[2] != ' ' && p[2] != '\n')
            p[1] = ' ';
    load(uncommented, &config); /* Uncommented as it stands it is good. */
    if (logged.count > 0)
        fail_msg("%s", logged.items[0]);
    config_done(&config);
}

/* ---- command line ---- */

static void test_options(void **state)
{
    static const struct {
        char *argv[7];
        int result;
        enum options_action action;
        const char *config_or_error;
    } cases[] = {
        {{"fleetd", "start"},
         -EINVAL,
         0,
         "fleetd takes no arguments. Did you mean to invoke fleetctl instead?"},
        {{"fleetd", "--bogus"}, -EINVAL, 0, "unknown option --bogus"},
        {{"fleetd", "-c"}, -EINVAL, 0, "unknown option -c"},
        {{"fleetd", "--config"}, -EINVAL, 0, "--config needs a file"},
        {{"fleetd", "--config="}, -EINVAL, 0, "--config needs a file"},
        {{"fleetd", "--config", ""}, -EINVAL, 0, "--config needs a file"},
        {{"fleetd", "--configs", "x"}, -EINVAL, 0, "unknown option --configs"},
        {{"fleetd", "-"}, -EINVAL, 0, "takes no arguments"},
        {{"fleetd", "--", "--version"}, -EINVAL, 0, "takes no arguments"},
        {{"fleetd", "--", "x"}, -EINVAL, 0, "takes no arguments"},
        {{"fleetd", "--config", "/x", "--"}, 0, OPTIONS_RUN, "/x"},
        {{"fleetd", "--"}, 0, OPTIONS_RUN, NULL},
        {{"fleetd", ""}, -EINVAL, 0, "takes no arguments"},
        {{"fleetd"}, 0, OPTIONS_RUN, NULL},
        {{"fleetd", "--config", "/x"}, 0, OPTIONS_RUN, "/x"},
        {{"fleetd", "-config", "/x"}, 0, OPTIONS_RUN, "/x"},
        {{"fleetd", "--config=/x"}, 0, OPTIONS_RUN, "/x"},
        {{"fleetd", "-config=/x"}, 0, OPTIONS_RUN, "/x"},
        {{"fleetd", "--version"}, 0, OPTIONS_VERSION, NULL},
        {{"fleetd", "-version"}, 0, OPTIONS_VERSION, NULL},
        {{"fleetd", "version"}, 0, OPTIONS_VERSION, NULL},
        {{"fleetd", "--config", "/x", "version"}, 0, OPTIONS_VERSION, "/x"},
        {{"fleetd", "-h"}, 0, OPTIONS_HELP, NULL},
        {{"fleetd", "--help"}, 0, OPTIONS_HELP, NULL},
        {{"fleetd", "-help"}, 0, OPTIONS_HELP, NULL},
        {{"fleetd", "--recover-quorum"}, 0, OPTIONS_RECOVER, NULL},
        {{"fleetd", "--recover-quorum", "--show", "--yes", "--config", "/x"}, 0, OPTIONS_RECOVER, "/x"},
        {{"fleetd", "--restore", "/b", "--config=/x"}, 0, OPTIONS_RESTORE, "/x"},
        {{"fleetd", "--restore=/b", "--show"}, 0, OPTIONS_RESTORE, NULL},
        {{"fleetd", "--restore"}, -EINVAL, 0, "--restore needs a file"},
        {{"fleetd", "--restore="}, -EINVAL, 0, "--restore needs a file"},
        {{"fleetd", "--restore", "/b", "--recover-quorum"}, -EINVAL, 0, "cannot be given together"},
        {{"fleetd", "--restore", "/b", "--yes"}, -EINVAL, 0, "--yes goes with --recover-quorum only"},
        {{"fleetd", "--recover-quorums"}, -EINVAL, 0, "unknown option --recover-quorums"},
        {{"fleetd", "--yes"}, -EINVAL, 0, "--yes goes with"},
        {{"fleetd", "--show"}, -EINVAL, 0, "--show goes with"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct options options = {.action = 77};
        struct err err = {0};
        int argc = 0;

        while (cases[i].argv[argc] != NULL)
            argc++;
        assert_int_equal(options_parse(argc, (char **)cases[i].argv, &options, &err), cases[i].result);
        if (cases[i].result < 0) {
            assert_int_equal(options.action, 77);
            assert_non_null(strstr(err.text, cases[i].config_or_error));
            continue;
        }
        assert_int_equal(options.action, cases[i].action);
        if (options.action == OPTIONS_RESTORE)
            assert_string_equal(options.backup, "/b");
        if (cases[i].config_or_error == NULL)
            assert_null(options.config_file);
        else
            assert_string_equal(options.config_file, cases[i].config_or_error);
    }
}

/* ---- identity, journal ---- */

static void test_machine_id(void **state)
{
    static const struct {
        const char *text, *id;
    } cases[] = {
        {"", NULL},
        {"\n", NULL},
        {"uninitialized\n", NULL},
        {"0123456789abcdef0123456789abcde\n", NULL},
        {"0123456789abcdef0123456789abcdef0\n", NULL},
        {"0123456789abcdef0123456789abcdeg\n", NULL},
        {"01234567-89ab-cdef-0123-456789abcdef\n", NULL},
        {"00000000000000000000000000000000\n", NULL},
        {"0123456789abcdef0123456789abcdef\nmore\n", NULL},
        {"0123456789abcdef0123456789abcdef\n", "0123456789abcdef0123456789abcdef"},
        {" 0123456789ABCDEF0123456789abcdef \n\n", "0123456789abcdef0123456789abcdef"},
        {"0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"},
    };
    struct err err = {0};
    char id[IDENTITY_ID_SIZE] = "untouched";

    assert_int_equal(identity_read_machine_id("/nonexistent", id, &err), -ENOENT);
    assert_non_null(strstr(err.text, "unable to determine local machine ID"));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int r;

        write_file(file, cases[i].text);
        snprintf(id, sizeof id, "untouched");
        r = identity_read_machine_id(file, id, &err);
        assert_int_equal(r, cases[i].id == NULL ? -EINVAL : 0);
        assert_string_equal(id, cases[i].id == NULL ? "untouched" : cases[i].id);
    }
}

static void test_boot_id(void **state)
{
    _cleanup_(freep) char *missing = xasprintf("%s/not/made", dir);
    _cleanup_(freep) char *run = xasprintf("%s/run", dir), *kept = xasprintf("%s/boot-id", run);
    char id[IDENTITY_ID_SIZE], again[IDENTITY_ID_SIZE], other[IDENTITY_ID_SIZE];

    assert_int_equal(identity_read_boot_id(missing, id), -ENOENT);
    assert_int_equal(identity_read_boot_id(run, id), 0);
    assert_int_equal(identity_read_boot_id(run, again), 0);
    assert_string_equal(again, id);
    /* Cut off by something: drawn anew, and kept. */
    write_file(kept, "0123");
    assert_int_equal(identity_read_boot_id(run, other), 0);
    assert_string_not_equal(other, id);
    assert_int_equal(identity_read_boot_id(run, again), 0);
    assert_string_equal(again, other);
}

static void test_detect_ip(void **state)
{
    static const char *const none[] = {
        "",
        "junk\n",
        /* Not the default route. */
        "lo\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n",
        /* 127.0.0.1 does not count. */
        "lo\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n",
        "no-such-if\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
    };
    char *ip;

    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        write_file(file, none[i]);
        ip = identity_detect_ip(file);
        assert_string_equal(ip, "");
        free(ip);
    }
    ip = identity_detect_ip("/nonexistent");
    assert_string_equal(ip, "");
    free(ip);
    ip = identity_detect_ip("/proc/net/route"); /* Whatever this host has. */
    assert_false(str_has_prefix(ip, "127."));
    free(ip);
}

static void test_journal_stream(void **state)
{
    _cleanup_(freep) char *mine = NULL;
    struct stat st;

    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    mine = xasprintf("%lu:%lu", (unsigned long)st.st_dev, (unsigned long)st.st_ino);
    assert_false(journal_is_stderr(NULL));
    assert_false(journal_is_stderr(""));
    assert_false(journal_is_stderr("x:y"));
    assert_false(journal_is_stderr("1:1"));
    assert_true(journal_is_stderr(mine));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_named_file_must_be_readable),
        TEST(test_bad_lines_and_values_keep_the_default),
        TEST(test_the_earlier_value_stays),
        TEST(test_metadata_limits),
        TEST(test_old_keys_warn_once),
        TEST(test_binary_junk_is_survived),
        TEST(test_defaults),
        TEST(test_value_forms),
        TEST(test_long_lines),
        TEST(test_all_keys),
        TEST(test_dropins_in_order_then_environment),
        TEST(test_cluster_address),
        TEST(test_addresses_of_others),
        TEST(test_api_listen),
        TEST(test_a_reload_is_strict),
        TEST(test_a_mistake_in_a_dropin_counts_and_one_in_the_environment_does_not),
        TEST(test_a_nul_byte_is_a_mistake),
        TEST(test_every_key_there_and_back),
        TEST(test_the_manual_has_every_key),
        TEST(test_the_example_has_every_key),
        TEST(test_options),
        TEST(test_machine_id),
        TEST(test_boot_id),
        TEST(test_detect_ip),
        TEST(test_journal_stream),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
